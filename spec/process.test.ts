/** Programs of all kinds of badness under the oracle: each is a finding with a name, and none harms us. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { layerOfSizes } from 'xmoe/cases';
import { examine, type Finding, type LayerCall } from 'xmoe/oracle';
import { type ProcessOptions, processImplementation } from 'xmoe/process';

const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'xmoe-'));
const withGradients = layerOfSizes(5, 4, 3, 2, { storage: 'f32' });
const { gradY, ...call } = withGradients;

const PRELUDE = `
  import { writeSync, readSync, writeFileSync, existsSync } from 'node:fs';
  import { spawn } from 'node:child_process';
  import { setTimeout as sleep } from 'node:timers/promises';
  import { readLayerCase, outputTensors, writeOutputs } from '${root}dist/layer-case/index.js';
  import { backward, forward, reference, referenceF32 } from '${root}dist/index.js';
  const take = n => {
    const bytes = Buffer.alloc(n);
    for (let at = 0; at < n; ) {
      const got = readSync(0, bytes, at, n - at);
      if (got === 0) return undefined;
      at += got;
    }
    return bytes;
  };
  const read = () => { const size = take(8); return size && take(Number(size.readBigUInt64LE())); };
  const framed = bytes => { const size = Buffer.alloc(8); size.writeBigUInt64LE(BigInt(bytes.length)); return Buffer.concat([size, bytes]); };
  const write = bytes => { for (let at = 0; at < bytes.length; ) at += writeSync(1, bytes, at); };
  const answerTo = question => {
    const { x, weights, config, inputs } = readLayerCase(question);
    return writeOutputs(outputTensors(forward(referenceF32, x, weights, config, inputs)), 'F32', new Map());
  };
  const serve = () => { for (let q; (q = read()); ) write(framed(answerTo(q))); };
`;

/**
 * A program in JavaScript. It has `read()`, the next question without its length or undefined at the end; `answerTo(question)`,
 * what the reference rounded to float32 answers; `framed(bytes)`, with its length before it; and `write(bytes)`.
 */
function program(script: string, options: ProcessOptions = {}) {
  const command = [process.execPath, '--input-type=module', '-e', `${PRELUDE}\n${script}`];
  return processImplementation(command, { seconds: 20, ...options });
}

/** The verdict and the faults of one call, all behaviours looked at. */
async function judged(script: string, options?: ProcessOptions, of: LayerCall = call) {
  const implementation = await program(script, options);
  try {
    const { verdict, findings } = await examine(implementation, of);
    return { verdict, findings };
  } finally {
    await implementation.close?.();
  }
}

test('a program that answers conforms', async () => {
  assert.deepEqual(await judged('serve();'), { verdict: 'conforms', findings: [] });
});

test('a limit of more seconds than a timer can count is none', async () => {
  for (const seconds of [1e9, Number.POSITIVE_INFINITY]) {
    assert.deepEqual(await judged('serve();', { seconds }), { verdict: 'conforms', findings: [] });
  }
});

test('a program that is asked for gradients is judged by them', async () => {
  const script = (factor: number) => `for (let q; (q = read()); ) {
    const { x, weights, config, inputs, gradY } = readLayerCase(q);
    const trace = forward(reference, x, weights, config, inputs);
    const outputs = outputTensors(trace, gradY && backward(trace, x, weights, config, gradY, inputs));
    const { shape, data } = outputs.get('grad.x') ?? { shape: [0], data: [] };
    outputs.set('grad.x', { shape, data: data.map(v => ${factor} * v) });
    write(framed(writeOutputs(outputs, 'F64', new Map())));
  }`;
  assert.equal((await judged(script(1), {}, withGradients)).verdict, 'conforms');
  assert.equal((await judged(script(1.01), {}, withGradients)).verdict, 'does not conform');
});

test('a program may write a byte at a time, and whatever it likes on stderr', async () => {
  const script = `for (let q; (q = read()); ) {
    console.error('thinking…'.repeat(20000));
    const bytes = framed(answerTo(q));
    for (let at = 0; at < bytes.length; at += 97) { write(bytes.subarray(at, at + 97)); if (at % 970 === 0) await sleep(1); }
  }`;
  assert.deepEqual(await judged(script), { verdict: 'conforms', findings: [] });
});

test('an answer without tensors and with a reason is a refusal, and no fault', async () => {
  const script = `for (let q; (q = read()); ) write(framed(writeOutputs(new Map(), 'F32', new Map([['refused', 'no swiglu\\u001b[31m']]))));`;
  const { verdict, findings } = await judged(script);
  assert.equal(verdict, 'conforms');
  assert.deepEqual(findings, [{ kind: 'refused', severity: 'property', detail: '"no swiglu\\u001b[31m"' }]);
});

const faults: [what: string, script: string, kind: Finding['kind'], detail: RegExp, options?: ProcessOptions][] = [
  ['exits at once', 'process.exit(3);', 'crashed', /exited with status 3 without an answer/],
  ['exits with success at once', '', 'crashed', /exited with status 0 without an answer/],
  [
    'throws',
    'read(); throw new RangeError("no such kernel");',
    'crashed',
    /status 1 without an answer; its stderr ends with ".*Node\.js/,
  ],
  ['is killed', 'read(); process.kill(process.pid, "SIGSEGV"); await sleep(9999);', 'crashed', /was ended by SIGSEGV/],
  [
    'exits in the middle of an answer',
    'write(framed(answerTo(read())).subarray(0, 100)); process.exit(0);',
    'crashed',
    /status 0 without an answer, after 92 of the \d+ bytes that it announced/,
  ],
  [
    'leaves after each answer',
    'write(framed(answerTo(read())));',
    'crashed',
    /the second time: the process exited with status 0 /,
  ],
  [
    'dies after its answer',
    'write(framed(answerTo(read()))); process.exit(7);',
    'crashed',
    /the second time: the process exited with status 7 /,
  ],
  ['hangs', 'read(); await sleep(99999);', 'hung', /gave no answer within 0\.5 s/, { seconds: 0.5 }],
  [
    'hangs in the middle of an answer',
    'write(framed(answerTo(read())).subarray(0, 50)); await sleep(99999);',
    'hung',
    /within 1 s, after 42 of the \d+ bytes that it announced/,
    { seconds: 1 },
  ],
  [
    'answers too late',
    'const q = read(); await sleep(1500); write(framed(answerTo(q))); serve();',
    'hung',
    /no answer within 1 s/,
    { seconds: 1 },
  ],
  [
    'counts the length in the length',
    `for (let q; (q = read()); ) { const bytes = framed(answerTo(q)); bytes.writeBigUInt64LE(BigInt(bytes.length)); write(bytes); }`,
    'hung',
    /bytes that it announced: the length counts the bytes behind it, not itself/,
    { seconds: 1 },
  ],
  [
    'writes the length in the other order',
    `for (let q; (q = read()); ) { const bytes = framed(answerTo(q)); bytes.subarray(0, 8).reverse(); write(bytes); }`,
    'wrote too much',
    /announced an answer of \d+ bytes; .*the length is little-endian/,
  ],
  [
    'writes the file alone',
    `for (let q; (q = read()); ) write(answerTo(q));`,
    'wrote too much',
    /is it a safetensors file without the length of the answer before it\?/,
  ],
  ['does not read', 'await sleep(99999);', 'hung', /no answer within 0\.5 s/, { seconds: 0.5 }],
  ['prints', 'console.log("Loading the model"); serve();', 'wrote rubbish', /text where .*: "Loading the model/],
  [
    'prints when nobody asks',
    'write(framed(answerTo(read()))); await sleep(100); console.log("done"); serve();',
    'wrote rubbish',
    /"done\\n/,
  ],
  [
    'answers nothing',
    'read(); write(framed(Buffer.alloc(0))); await sleep(9999);',
    'wrote rubbish',
    /at least 8 bytes/,
  ],
  ['answers noise', 'read(); write(framed(Buffer.alloc(500, 0x5a))); await sleep(9999);', 'wrote rubbish', /no trace/],
  [
    'answers its question',
    'for (let q; (q = read()); ) write(framed(q));',
    'wrote rubbish',
    /expected some of logits, .*, got/,
  ],
  [
    'announces more than memory holds',
    'read(); write(Buffer.alloc(8, 0x7f)); await sleep(9999);',
    'wrote too much',
    /an answer of 91\d+ bytes/,
  ],
  ['floods', 'read(); for (;;) write(Buffer.alloc(1 << 20));', 'wrote too much', /more than the 0 bytes/],
  [
    'floods with letters',
    'read(); for (;;) write(Buffer.alloc(1 << 20, "y\\n"));',
    'wrote rubbish',
    /text where the length/,
  ],
  [
    'writes on behind its answer',
    'write(Buffer.concat([framed(answerTo(read())), Buffer.alloc(10)])); await sleep(9999);',
    'wrote too much',
    /wrote more than the \d+ bytes/,
  ],
  [
    'closes its stdout',
    'read(); (await import("node:fs")).closeSync(1); await sleep(99999);',
    'crashed',
    /closed its stdout without an answer/,
  ],
  [
    'names an expert that a byte cannot hold',
    `read(); const { fromIntegers, writeSafetensors } = await import('${root}dist/safetensors/index.js');
     write(framed(writeSafetensors({ tensors: new Map([['out.selected', fromIntegers([-1], [1, 1], 'I32')]]), metadata: new Map() })));
     await sleep(9999);`,
    'wrote rubbish',
    /"out\.selected" expected integers from 0 to 255, got -1/,
  ],
];

// most of them wait
describe('a program that', { concurrency: 4 }, () => {
  for (const [what, script, kind, detail, options] of faults) {
    test(`${what}: ${kind}`, async () => {
      const { verdict, findings } = await judged(script, options);
      assert.equal(verdict, 'does not conform');
      assert.deepEqual([findings[0].kind, findings[0].severity], [kind, 'fault']);
      assert.match(findings[0].detail, detail);
    });
  }
});

test('what hung once has less time: ten times its slowest answer, and at least 5 s', async () => {
  const implementation = await program('await sleep(99999);', { seconds: 6 });
  const messages: string[] = [];
  for (let i = 0; i < 2; i++)
    await Promise.resolve(implementation.run(call)).catch(error => messages.push(error.message));
  await implementation.close?.();
  assert.deepEqual(
    messages.map(message => /within (\d+) s/.exec(message)?.[1]),
    ['6', '5'],
  );
});

test('a program that takes too much memory is ended', {
  skip: process.platform !== 'linux' && 'seen on Linux only',
}, async () => {
  const script = 'read(); const all = []; for (;;) { all.push(Buffer.alloc(1 << 24, 1)); await sleep(5); }';
  const { findings } = await judged(script, { memoryBytes: 300 * 2 ** 20 });
  assert.equal(findings[0].kind, 'crashed');
  assert.match(findings[0].detail, /it used \d+ MiB of memory; its limit is 300 MiB/);
});

test('after a failure another process answers', async () => {
  const marker = join(folder, 'crashed');
  const implementation = await program(
    `if (!existsSync('${marker}')) { writeFileSync('${marker}', ''); process.exit(9); } serve();`,
  );
  assert.equal((await examine(implementation, call)).findings[0].kind, 'crashed');
  assert.deepEqual((await examine(implementation, call)).findings, []);
  await implementation.close?.();
  rmSync(marker);
});

test('what a program started ends with it', { skip: process.platform === 'win32' && 'no process groups' }, async () => {
  const pids = join(folder, 'pids');
  const implementation = await program(
    `const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'inherit' });
     writeFileSync('${pids}', child.pid + ' ' + process.pid);
     for (let q; (q = read()); ) write(framed(answerTo(q)));
     await sleep(99999); // does not leave when its stdin ends`,
  );
  await examine(implementation, call, { behaviours: [] });
  await implementation.close?.();
  await sleep(100);
  for (const pid of readFileSync(pids, 'utf8').split(' ')) assert.ok(hasEnded(Number(pid)), pid);
});

test('what left its group does not hold us', { skip: process.platform !== 'linux' && 'needs setsid' }, async () => {
  const script = `
    spawn('setsid', ['sleep', '30'], { stdio: 'inherit' }).unref();
    write(framed(answerTo(read())));
    process.exit(1);`;
  const path = join(folder, 'leaver.mjs');
  writeFileSync(path, `${PRELUDE}\n${script}`);
  const [command, args] = [process.execPath, ['dist/cli/main.js', 'check', '--save', folder, '--', 'node', path]];
  const { status, stdout } = spawnSync(command, args, { cwd: root, encoding: 'utf8', timeout: 25_000 });
  assert.equal(status, 1);
  assert.match(stdout, /^FAULT crashed: .*the process exited with status 1 /m);
});

/** Also where nobody has asked for its status yet. */
function hasEnded(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return true;
  }
}

test('a program that does not exist is bad usage, and leaves nothing to be ended', async () => {
  const numListeners = process.listenerCount('exit');
  await assert.rejects(
    processImplementation(['no-such-program-of-ours']),
    /"command" expected a program that starts, got spawn/,
  );
  assert.equal(process.listenerCount('exit'), numListeners);
});
