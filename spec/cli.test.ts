/** The command line as a user types it: what it prints, where, and its exit status. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readLayerCase, writeLayerCase } from 'xmoe/layer-case';
import { readSafetensors, toFloat64 } from 'xmoe/safetensors';
import { xmoe } from './command.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'xmoe-'));
const MAIN = 'dist/cli/main.js';
const MODEL = 'models/xmoe-gpt.safetensors';
const TEXT = 'models/text/sotu.txt';
const recording = (name: string) => `spec/recordings/${name}.safetensors`;

/** As a process: where it is about the process, or V8's flags, which are set for all of it. */
function xmoeAlone(...args: string[]) {
  const { NO_COLOR, FORCE_COLOR, ...env } = process.env;
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], { cwd: root, encoding: 'utf8', env });
  return { status, stdout, stderr };
}

/** A file of the test's own. */
function file(name: string, bytes: Uint8Array): string {
  writeFileSync(join(folder, name), bytes);
  return join(folder, name);
}

test('--help, and each command’s, print what there is to know', async () => {
  const { status, stdout } = await xmoe('--help');
  assert.equal(status, 0);
  for (const command of ['layer', 'eval', 'generate', 'show']) {
    assert.match(stdout, new RegExp(`^  ${command} `, 'm'));
    const help = await xmoe(command, '--help');
    assert.equal(help.status, 0);
    assert.match(help.stdout, new RegExp(`^xmoe ${command} .*\n\n[^]*--backend[^]*Exit status`));
  }
});

test('layer agrees with a recorded case, stage by stage', async () => {
  const { status, stdout, stderr } = await xmoe(
    'layer',
    recording('capacity-tight'),
    '--backend',
    'reference',
    '--grad',
  );
  assert.equal(stderr, '');
  assert.equal(status, 0);
  for (const stage of ['logits', 'selected', 'kept', 'y', 'loss', 'grad.x', 'grad.experts.down_proj_bias']) {
    assert.match(stdout, new RegExp(`^  ${stage.replaceAll('.', '\\.')} .* agree$`, 'm'));
  }
  assert.match(stdout, /^agree: 14 stages$/m);
});

test('layer without --grad says that it left the gradients out', async () => {
  const { status, stdout } = await xmoe('layer', recording('odd-sizes'));
  assert.equal(status, 0);
  assert.match(stdout, /gradients were left out: --grad/);
});

test('layer disagrees with a case whose y is another, and still writes its own', async () => {
  const layerCase = readLayerCase(readFileSync(join(root, recording('odd-sizes'))));
  const y = layerCase.recorded.get('y')!;
  const recorded = new Map(layerCase.recorded).set('y', { ...y, data: Float64Array.from(y.data, v => v + 1e-9) });
  const path = file('wrong.safetensors', writeLayerCase({ ...layerCase, recorded }));
  const out = join(folder, 'out.safetensors');
  const { status, stdout } = await xmoe('layer', path, '--grad', '--out', out);
  assert.equal(status, 1);
  assert.match(stdout, /^ {2}y .* disagree: \[\d+, \d+\]: recorded .*, got /m);
  assert.match(stdout, /^disagree: y$/m);
  assert.match(stdout, /^the recorded outputs by themselves, in f64:\ndoes not conform: look at experts$/m);

  const { tensors } = readSafetensors(readFileSync(out));
  const names = ['combine', 'kept', 'load_balancing_loss', 'logits', 'loss', 'probs', 'selected', 'y'];
  assert.deepEqual([...tensors.keys()].filter(name => !name.startsWith('grad.')).sort(), names);
  assert.deepEqual([...tensors.keys()].filter(name => name.startsWith('grad.')).sort(), [
    'grad.experts.down_proj',
    'grad.experts.down_proj_bias',
    'grad.experts.up_proj',
    'grad.experts.up_proj_bias',
    'grad.router.weight',
    'grad.x',
  ]);
  assert.deepEqual(
    Array.from(tensors.values(), ({ dtype }) => dtype)
      .sort()
      .join(),
    `${'F64,'.repeat(12)}U8,U8`,
  );
  const largest = Math.max(...Array.from(y.data, Math.abs));
  toFloat64(tensors.get('y')!, 'y').forEach((value, i) => {
    assert.ok(Math.abs(value - y.data[i]) <= 1e-12 * largest);
  });
  assert.deepEqual(tensors.get('loss')!.shape, [1]);
});

test('layer allows recorded outputs what their arithmetic may be off by', async () => {
  const layerCase = readLayerCase(readFileSync(join(root, recording('odd-sizes'))));
  const y = layerCase.recorded.get('y')!;
  const near = Float64Array.from(y.data, v => v * (1 + 2 ** -10)); // an eighth of bf16's last place
  const recorded = new Map(layerCase.recorded).set('y', { ...y, data: near });
  const path = file('smaller.safetensors', writeLayerCase({ ...layerCase, recorded }));
  assert.equal((await xmoe('layer', path)).status, 1);
  assert.equal((await xmoe('layer', path, '--arithmetic', 'bf16')).status, 0);
  const { status, stderr } = await xmoe('layer', path, '--arithmetic', 'fp8');
  assert.equal(status, 2);
  assert.match(stderr, /^xmoe layer: "--arithmetic" expected f64 \| f32 \| tf32 \| f16 \| bf16 \| int8, got "fp8"\n$/);
});

test('layer of a float32 backend writes F32', async () => {
  const out = join(folder, 'f32.safetensors');
  assert.equal((await xmoe('layer', recording('odd-sizes'), '--backend', 'reference-f32', '--out', out)).status, 0);
  const { tensors } = readSafetensors(readFileSync(out));
  assert.deepEqual([tensors.get('y')!.dtype, tensors.get('kept')!.dtype], ['F32', 'U8']);
});

test('layer runs on WebAssembly, on threads too, and writes the same bytes', async () => {
  const written: Buffer[] = [];
  for (const threads of ['1', '2']) {
    const out = join(folder, `threads-${threads}.safetensors`);
    const { status, stderr, stdout } = await xmoe(
      ...['layer', recording('capacity-tight'), '--backend', 'wasm', '--threads', threads, '--out', out],
    );
    assert.deepEqual([status, stderr], [0, '']);
    assert.match(stdout, /backend wasm$/m);
    written.push(readFileSync(out));
  }
  assert.deepEqual(written[0], written[1]);
});

test('layer runs on relaxed SIMD where it is there or enabled, and else says why it cannot', () => {
  const args = ['layer', recording('capacity-tight'), '--backend', 'wasm-relaxed'];
  const enabled = xmoeAlone(...args, '--enable-relaxed-simd', '--threads', '2');
  assert.deepEqual([enabled.status, enabled.stderr], [0, '']);
  assert.match(enabled.stdout, /backend wasm-relaxed$/m);
  const { status, stdout, stderr } = xmoeAlone(...args);
  if (status === 0) assert.match(stdout, /backend wasm-relaxed$/m);
  else {
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(stderr, /^xmoe layer: "engine" expected relaxed SIMD, got an engine without it/);
  }
});

test('layer with experts in fewer bits is held to the bounds of their format', async () => {
  for (const format of ['f16', 'bf16', 'int8']) {
    const { status, stdout } = await xmoe(
      'layer',
      recording('capacity-tight'),
      '--backend',
      'wasm',
      '--experts',
      format,
    );
    assert.equal(status, 0, stdout);
  }
});

test('eval on WebAssembly matches the reference within 1e-3, and threads change no figure', async () => {
  const evaluate = async (...args: string[]) => {
    const { stdout, stderr } = await xmoe('eval', MODEL, TEXT, '--max-tokens', '256', '--json', ...args);
    assert.equal(stderr, '');
    return JSON.parse(stdout);
  };
  const theirs = await evaluate();
  for (const name of ['wasm', 'wasm-relaxed']) {
    const enabling = name === 'wasm' ? [] : ['--enable-relaxed-simd'];
    const args = ['--backend', name, ...enabling];
    const [ours, onThreads] = [await evaluate(...args, '--threads', '1'), await evaluate(...args, '--threads', '3')];
    assert.equal(ours.backend, name);
    assert.ok(Math.abs(ours.bitsPerByte - theirs.bitsPerByte) < 1e-3);
    ours.expertsPerToken.forEach((count: number, i: number) => {
      assert.ok(Math.abs(count - theirs.expertsPerToken[i]) < 1e-3);
    });
    assert.deepEqual({ ...onThreads, seconds: 0 }, { ...ours, seconds: 0 });
  }
});

test('layer runs with vectors of 256 bits, or says why it cannot', () => {
  const args = ['layer', recording('silu'), '--backend', 'wasm', '--revectorize', '--threads', '2'];
  const { status, stdout, stderr } = xmoeAlone(...args);
  if (status === 0) assert.match(stdout, /backend wasm$/m);
  else {
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(
      stderr,
      /^xmoe layer: "--revectorize" expected what can be had here, got none: (Node 24|V8 has it on x64)/,
    );
  }
});

test('eval with stored weights is near float32, and another format is bad usage', async () => {
  const evaluate = (weights: string) =>
    xmoe('eval', MODEL, TEXT, '--max-tokens', '128', '--json', '--backend', 'wasm', '--weights', weights);
  const runs = await Promise.all(['f32', 'f16', 'bf16', 'int8'].map(evaluate));
  const [exact, ...stored] = runs.map(({ stdout }) => JSON.parse(stdout).bitsPerByte);
  for (const bitsPerByte of stored) {
    assert.ok(bitsPerByte !== exact && Math.abs(bitsPerByte - exact) < 0.05, `${bitsPerByte}, ${exact}`);
  }
  const refused = await evaluate('int4');
  assert.deepEqual(
    [refused.status, refused.stderr],
    [2, 'xmoe eval: "--weights" expected f32 | f16 | bf16 | int8, got "int4"\n'],
  );
});

test('generate on WebAssembly writes what the reference writes, and ends', () => {
  const write = (...args: string[]) =>
    xmoeAlone('generate', MODEL, '--prompt', 'And the ', '--max-tokens', '24', '--temperature', '0', ...args);
  assert.deepEqual(write('--backend', 'wasm', '--threads', '2'), write());
  const sampled = ['--temperature', '1.3', '--top-k', '9', '--top-p', '0.9', '--seed', '4'];
  assert.deepEqual(write('--backend', 'wasm', ...sampled), write(...sampled));
});

test('of the one most probable byte, generate writes what temperature 0 writes', async () => {
  const write = (...args: string[]) =>
    xmoe('generate', MODEL, '--prompt', 'And the ', '--max-tokens', '24', '--backend', 'wasm', ...args);
  assert.deepEqual(await write('--top-k', '1'), await write('--temperature', '0'));
});

test('show on WebAssembly paints what the reference paints', async () => {
  const show = (...args: string[]) => xmoe('show', MODEL, TEXT, '--max-tokens', '60', ...args);
  assert.deepEqual(await show('--backend', 'wasm'), await show());
});

test('layer with nothing recorded agrees', async () => {
  const layerCase = readLayerCase(readFileSync(join(root, recording('odd-sizes'))));
  const { gradY, ...rest } = { ...layerCase, recorded: new Map() };
  const path = file('bare.safetensors', writeLayerCase(rest));
  const { status, stdout } = await xmoe('layer', path);
  assert.equal(status, 0);
  assert.match(stdout, /^nothing recorded to compare with$/m);
  const withGrad = await xmoe('layer', path, '--grad');
  assert.deepEqual([withGrad.status, withGrad.stdout], [2, '']);
  assert.match(withGrad.stderr, /^xmoe layer: "grad.y" expected the cotangent of y in the case, got none\n$/);
});

const cut = file('cut.safetensors', readFileSync(join(root, MODEL)).subarray(0, 100_000));
const badUsage: [string, string[], RegExp][] = [
  ['nothing', [], /^xmoe "COMMAND" expected layer \| check \| vectors \| eval \| generate \| show, got nothing/],
  ['an unknown command', ['lair'], /^xmoe "COMMAND" expected .*, got "lair"/],
  ['an unknown option', ['layer', '--gard', recording('silu')], /^xmoe layer: .*--gard/],
  ['no case', ['layer'], /^xmoe layer: "arguments" expected CASE.safetensors, got nothing/],
  ['two cases', ['layer', 'a', 'b'], /^xmoe layer: "arguments" expected CASE.safetensors, got a b/],
  ['a missing file', ['layer', 'nowhere.safetensors'], /^xmoe layer: "CASE" expected a readable file, got ENOENT/],
  ['a folder', ['layer', 'spec'], /^xmoe layer: "CASE" expected a readable file, got EISDIR/],
  ['a file of another kind', ['layer', 'README.md'], /^xmoe layer: /],
  ['a model for a case', ['layer', MODEL], /^xmoe layer: "format" expected metadata/],
  [
    'an unknown backend',
    ['layer', recording('silu'), '--backend', 'cuda'],
    /"--backend" expected reference \| reference-f32 \| wasm \| wasm-relaxed, got "cuda"/,
  ],
  [
    'threads of a backend without them',
    ['eval', MODEL, TEXT, '--threads', '2'],
    /"--threads" expected --backend wasm \| wasm-relaxed beside it, got reference/,
  ],
  [
    'a format of what is not stored',
    ['generate', MODEL, '--prompt', 'a', '--weights', 'f16'],
    /"--weights" expected --backend wasm \| wasm-relaxed beside it, got reference/,
  ],
  [
    'a missing model for WebAssembly',
    ['eval', 'nowhere.safetensors', TEXT, '--backend', 'wasm'],
    /^xmoe eval: "MODEL" expected a readable file, got ENOENT/,
  ],
  ['a truncated model for WebAssembly', ['eval', cut, TEXT, '--backend', 'wasm'], /^xmoe eval: tensor "model/],
  [
    'no thread',
    ['layer', recording('silu'), '--backend', 'wasm', '--threads', '0'],
    /"--threads" expected an integer of at least 1, got "0"/,
  ],
  [
    'enabling what the backend does not use',
    ['layer', recording('silu'), '--backend', 'wasm', '--enable-relaxed-simd'],
    /"--enable-relaxed-simd" expected --backend wasm-relaxed beside it, got wasm/,
  ],
  [
    'gradients of a backend without backward',
    ['layer', recording('silu'), '--grad', '--backend', 'reference-f32'],
    /"backend" expected one with a backward/,
  ],
  [
    'an --out that cannot be written',
    ['layer', recording('silu'), '--out', 'nowhere/out'],
    /"--out" expected a path that can be written/,
  ],
  ['a truncated model', ['eval', cut, TEXT], /^xmoe eval: /],
  [
    'a threshold that is no number',
    ['eval', MODEL, TEXT, '--threshold', 'high'],
    /"--threshold" expected a number, got "high"/,
  ],
  [
    'a negative number of tokens',
    ['eval', MODEL, TEXT, '--max-tokens=-1'],
    /"--max-tokens" expected an integer of at least 0, got "-1"/,
  ],
  ['no prompt', ['generate', MODEL], /"--prompt" expected text to continue, got nothing/],
  ['an empty prompt', ['generate', MODEL, '--prompt', ''], /"--prompt" expected text to continue, got an empty one/],
  ['a top-k of none', ['generate', MODEL, '--prompt', 'a', '--top-k', '0'], /"--top-k" expected an integer/],
  ['a top-p above 1', ['generate', MODEL, '--prompt', 'a', '--top-p', '1.5'], /"--top-p" expected/],
];

for (const [what, args, message] of badUsage) {
  test(`${what} is bad usage: one line, status 2`, async () => {
    const { status, stdout, stderr } = await xmoe(...args);
    assert.equal(status, 2);
    assert.equal(stdout, '');
    assert.match(stderr, message);
    assert.match(stderr, /^[^\n]+\n$/);
  });
}

test('eval --json prints one object whose figures agree with each other', async () => {
  const { status, stdout, stderr } = await xmoe(
    'eval',
    MODEL,
    TEXT,
    '--max-tokens',
    '300',
    '--threshold',
    'dense',
    '--json',
  );
  assert.deepEqual([status, stderr], [0, '']); // no progress bar where there is no terminal
  const report = JSON.parse(stdout);
  assert.deepEqual([report.threshold, report.backend, report.numPredicted], ['dense', 'reference', 300]);
  assert.deepEqual(report.expertsPerToken, [16, 16]);
  assert.ok(Math.abs(report.perplexity - 2 ** report.bitsPerByte) < 1e-12);
  // every expert: 16·96 = 2·768 hidden units, so twice the dense FFN, and the router's 2·192·16
  assert.ok(Math.abs(report.flopsShare - (2 + (2 * 192 * 16) / (4 * 192 * 768))) < 1e-12);
});

test('eval prints a table', async () => {
  const { status, stdout } = await xmoe('eval', MODEL, TEXT, '--max-tokens', '64');
  assert.equal(status, 0);
  assert.match(
    stdout,
    /^threshold {10}0\.9\nbits per byte {6}\d\.\d{4}\nperplexity .*\nexperts per token {2}layer 1: 1\.\d+, layer 3: \d\.\d+\nMoE FLOPs .* %/,
  );
});

test('generate is repeatable by seed, and greedy at temperature 0', async () => {
  const run = (...args: string[]) => xmoe('generate', MODEL, '--prompt', 'And the ', '--max-tokens', '24', ...args);
  const greedy = await run('--temperature', '0');
  assert.equal(greedy.status, 0);
  assert.match(greedy.stdout, /^And the .{24}\n$/s);
  assert.equal((await run('--temperature', '0', '--seed', '7')).stdout, greedy.stdout);
  assert.equal((await run('--seed', '7')).stdout, (await run('--seed', '7')).stdout);
  assert.notEqual((await run('--seed', '7')).stdout, (await run('--seed', '8')).stdout);
});

test('generate stops quietly when its reader does', async () => {
  const child = spawn(process.execPath, [MAIN, 'generate', MODEL, '--prompt', 'And', '--max-tokens', '1000000'], {
    cwd: root,
  });
  child.stdout.once('data', () => child.stdout.destroy());
  const status = await new Promise(resolve => child.once('exit', resolve));
  assert.equal(status, 0);
  assert.equal(await new Response(child.stderr as unknown as ReadableStream).text(), '');
});

test('show prints the table and, where there are no colours, a figure under each character', async () => {
  const { status, stdout, stderr } = await xmoe('show', MODEL, TEXT, '--max-tokens', '120');
  assert.deepEqual([status, stderr], [0, '']);
  assert.match(stdout, /^0\.5 .*\n0\.9 .*\ndense .*16\.00 .*16\.00/m);
  assert.ok(!stdout.includes('\u001b'));
  const lines = stdout.trimEnd().split('\n').slice(-4);
  const passage = readFileSync(join(root, TEXT), 'utf8').slice(0, 120);
  assert.equal(lines[0] + lines[2], passage.replace(/ $/, ''));
  assert.match(lines[1], /^[1-9 ]+$/);
});
