/** `xmoe check` and `xmoe vectors` as a user types them: right and wrong backends in every form, and the line that replays. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { forward, referenceF32 } from 'xmoe';
import { outputTensors, readLayerCase, writeOutputs } from 'xmoe/layer-case';
import { xmoe } from './command.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'xmoe-'));
const MAIN = 'dist/cli/main.js';

function sh(program: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd: root, encoding: 'utf8' });
  return { status, stdout, stderr };
}

/** A module of the test's own; `xmoe` is the package. */
function module(name: string, code: string): string {
  const path = join(folder, name);
  writeFileSync(path, code.replaceAll("'xmoe", `'${root}dist`).replaceAll("dist'", "dist/index.js'"));
  return path;
}

const replayOf = (stdout: string) => /again by\n +(.*)\n/.exec(stdout)![1];
const savedAs = (stdout: string) => /^saved as (.*); again by$/m.exec(stdout)![1];
const smallestOf = (stdout: string) =>
  /shows it:\n +T (\d+), E (\d+), d (\d+), m (\d+);/.exec(stdout)!.slice(1).map(Number);

/** Its experts forget the output bias from the third token on. */
const forgetful = module(
  'forgetful.mjs',
  `import { referenceF32, zeros } from 'xmoe';
  export default {
    ...referenceF32,
    name: 'forgetful',
    runExperts(x, plan, weights, config) {
      const right = referenceF32.runExperts(x, plan, weights, config);
      const { downBias, ...rest } = weights;
      const wrong = referenceF32.runExperts(x, plan, rest, config);
      plan.tokenIndex.forEach((t, i) => {
        const { cols } = right.out;
        if (t >= 2) right.out.data.set(wrong.out.data.subarray(i * cols, (i + 1) * cols), i * cols);
      });
      return right;
    },
  };`,
);

/** As a function, and as a program, that renormalises the weights of what was kept. */
const renormalising = (serve: string) => `
  import { forward, referenceF32 } from 'xmoe';
  import { outputTensors, readLayerCase, writeOutputs } from 'xmoe/layer-case/index.js';
  function layer({ x, weights, config, inputs }) {
    const backend = {
      ...referenceF32,
      dispatch(routing, given, c) {
        const plan = referenceF32.dispatch(routing, given, c);
        const sums = new Float64Array(x.rows);
        plan.tokenIndex.forEach((t, i) => { sums[t] += plan.combineWeight[i]; });
        return { ...plan, combineWeight: plan.combineWeight.map((w, i) => w / sums[plan.tokenIndex[i]]) };
      },
    };
    return outputTensors(forward(backend, x, weights, config, inputs));
  }
  ${serve}`;

test('check and vectors say what there is to know', async () => {
  assert.match(
    (await xmoe('check', '--help')).stdout,
    /^xmoe check --backend X [\s\S]*--replay FILE[\s\S]*Exit status: 0 conforms/,
  );
  assert.match((await xmoe('vectors', '--help')).stdout, /^xmoe vectors DIR [\s\S]*Exit status/);
});

for (const backend of ['reference', 'reference-f32', 'wasm']) {
  test(`${backend} conforms`, async () => {
    const { status, stdout, stderr } = await xmoe('check', '--backend', backend, '--runs', '60');
    assert.deepEqual([status, stderr], [0, ''], stdout);
    assert.match(stdout, new RegExp(`^${backend}: 60 calls \\(seed 0\\), arithmetic f(32|64), `));
    for (const stage of ['logits', 'probs', 'selection', 'dispatch', 'combine', 'loss']) {
      assert.match(stdout, new RegExp(`^  ${stage} +\\d+ +0 +\\d+\\b`, 'm'));
    }
    assert.match(stdout, /^conforms on 60 calls$/m);
    assert.match(
      stdout,
      /^where arithmetic is exact, it selects as XMoE does; of equal probabilities, lowest index first$/m,
    );
  });
}

test('wasm with experts of 8 bits is held to the arithmetic of int8, and is wrong in float32', async () => {
  const options = ['check', '--backend', 'wasm', '--experts', 'int8', '--runs', '40', '--save', folder];
  const { status, stdout } = await xmoe(...options);
  assert.equal(status, 0, stdout);
  assert.match(stdout, /^wasm: 40 calls \(seed 0\), arithmetic int8, /);
  const held = await xmoe(...options, '--arithmetic', 'f32');
  assert.equal(held.status, 1);
  assert.match(held.stdout, /look at experts$/m);
});

test('the reference conforms with its gradients', async () => {
  const { status, stdout } = await xmoe('check', '--backend', 'reference', '--runs', '40', '--grad');
  assert.equal(status, 0, stdout);
  assert.match(stdout, /^ {2}grad\.x +40 /m);
});

test('a wrong module is blamed on its stage, on the smallest case, and the line replays it', async () => {
  const json = join(folder, 'report.json');
  const { status, stdout } = await xmoe('check', '--backend', forgetful, '--save', folder, '--json', json);
  assert.equal(status, 1);
  assert.match(stdout, /^ {2}experts +\d+ +1 /m);
  assert.match(stdout, /^does not conform$/m);
  assert.match(
    stdout,
    /^case \d+ fails at experts: \d+ of \d+ values of expert_out are off by more than their bounds/m,
  );
  assert.deepEqual(smallestOf(stdout), [3, 1, 1, 1]);

  const report = JSON.parse(readFileSync(json, 'utf8'));
  assert.deepEqual(
    [report.verdict, report.implementation, report.arithmetic],
    ['does not conform', 'forgetful', 'f32'],
  );
  assert.equal(report.example.conformance.blamed, 'experts');
  assert.equal(report.example.file, savedAs(stdout));
  assert.equal(report.replay, replayOf(stdout));

  const layerCase = readLayerCase(readFileSync(savedAs(stdout)));
  assert.deepEqual([layerCase.x.rows, layerCase.config.numExperts], [3, 1]);
  assert.ok(layerCase.recorded.has('y'));

  const again = sh('sh', '-c', replayOf(stdout));
  assert.equal(again.status, 1, again.stderr);
  assert.match(again.stdout, /^ {2}experts +1 +1 /m);
  const right = sh('sh', '-c', replayOf(stdout).replace(forgetful, 'reference-f32'));
  assert.equal(right.status, 0, right.stdout);
});

test('a wrong function is blamed on its stage, and the line replays it', async () => {
  const path = module('function.mjs', renormalising('export default layer;'));
  const { status, stdout } = await xmoe(
    'check',
    `--backend=${path}`,
    '--router=threshold',
    '--save',
    folder,
    '--runs=50',
  );
  assert.equal(status, 1, stdout);
  assert.match(stdout, /^layer: /);
  assert.equal(sh('sh', '-c', replayOf(stdout)).status, 1);
  assert.match(savedAs(stdout), /xmoe-failure-(combine|dispatch)-/);
});

test('a wrong program is blamed on its stage, and the line replays it', async () => {
  const serve = `
    import { readSync, writeSync } from 'node:fs';
    const take = n => {
      const bytes = Buffer.alloc(n);
      for (let at = 0, got; at < n; at += got) if (!(got = readSync(0, bytes, at, n - at))) process.exit(0);
      return bytes;
    };
    for (;;) {
      const answer = writeOutputs(layer(readLayerCase(take(Number(take(8).readBigUInt64LE())))), 'F32', new Map());
      const size = Buffer.alloc(8);
      size.writeBigUInt64LE(BigInt(answer.length));
      for (const bytes of [size, answer]) for (let at = 0; at < bytes.length; ) at += writeSync(1, bytes, at);
    }`;
  const path = module("a program's.mjs", renormalising(serve));
  const { status, stdout, stderr } = await xmoe('check', '--save', folder, '--router', 'threshold', '--', 'node', path);
  assert.equal(status, 1, stderr);
  assert.match(savedAs(stdout), /xmoe-failure-(combine|dispatch)-/);
  const again = sh('sh', '-c', replayOf(stdout));
  assert.equal(again.status, 1, again.stderr);
  assert.match(again.stdout, /^does not conform$/m);
});

test('a relative of XMoE is named', async () => {
  const path = module(
    'exceeds.mjs',
    `import { referenceF32, selectExceed, planOf } from 'xmoe';
     export default {
       ...referenceF32,
       name: 'exceeds',
       dispatch({ logits, probs }, inputs, config) {
         if (config.router !== 'threshold' || config.capacityFactor !== null) return referenceF32.dispatch({ logits, probs }, inputs, config);
         const selection = selectExceed(probs, config.threshold, inputs.tokenMask);
         return planOf(selection, new Uint8Array(selection.expertIndex.length).fill(1), 1, { logits, probs }, config);
       },
     };`,
  );
  const { status, stdout } = await xmoe('check', '--backend', path, '--save', folder);
  assert.equal(status, 1);
  assert.match(stdout, /^where arithmetic is exact, it selects by another rule: exceed \(Dynamic MoE\): ≤ for </m);
  assert.match(stdout, /look at selection$/m);
});

test('a program that crashes is a finding, with the case saved', async () => {
  const { status, stdout } = await xmoe('check', '--save', folder, '--', 'node', '-e', 'process.exit(4)');
  assert.equal(status, 1);
  assert.match(stdout, /^FAULT crashed: the process exited with status 4 without an answer$/m);
  assert.match(savedAs(stdout), /xmoe-failure-crashed-seed0-case0\.safetensors$/);
  assert.deepEqual(smallestOf(stdout), [0, 1, 1, 1]);
  assert.match(sh('sh', '-c', replayOf(stdout)).stdout, /^FAULT crashed/m);
});

const answering = `import { forward, reference } from 'xmoe';
  import { outputTensors } from 'xmoe/layer-case/index.js';
  const right = ({ x, weights, config, inputs }) => outputTensors(forward(reference, x, weights, config, inputs));`;

const endings: readonly [what: string, script: string, finding: RegExp][] = [
  ['hangs', 'for (;;);', /^FAULT hung: the module gave no answer within 2 s$/m],
  ['never answers', 'return new Promise(() => {});', /^FAULT hung: the module gave no answer within 2 s$/m],
  ['ends the process', 'process.exit(3);', /^FAULT crashed: the module ended its thread with status 3$/m],
  [
    'throws when nobody looks',
    'setTimeout(() => { throw new Error("late"); }); return new Promise(() => {});',
    /^FAULT crashed: the module was ended by Error: late$/m,
  ],
];

// They wait more than they compute: side by side.
describe('modules that end badly', { concurrency: true }, () => {
  for (const [i, [what, script, finding]] of endings.entries()) {
    test(`a module that ${what} is a finding, and the search goes on to a small case`, async () => {
      const path = module(
        `ending-${i}.mjs`,
        `${answering} export default call => { if (call.x.rows > 2) { ${script} } return right(call); };`,
      );
      const { status, stdout } = await xmoe(
        'check',
        '--time-limit',
        '2',
        '--backend',
        path,
        '--save',
        folder,
        '--runs',
        '20',
      );
      assert.equal(status, 1);
      assert.match(stdout, finding);
      assert.equal(smallestOf(stdout)[0], 3);
    });
  }
});

test('a module is told of the end, and sees one call put twice as the same object', async () => {
  const path = module(
    'closing.mjs',
    `${answering} const seen = new WeakSet(); let again = 0;
     export default { name: 'closing', close() { process.stderr.write(again + ' seen again'); },
       run(call) { if (seen.has(call)) again++; seen.add(call); return right(call); } };`,
  );
  const { status, stderr } = await xmoe('check', '--backend', path, '--runs', '8');
  assert.equal(status, 0);
  assert.match(stderr, /^[1-9]\d* seen again$/);
});

test('shards are disjoint, and together the whole', async () => {
  const asked = async (...args: string[]) => {
    const path = module(
      'recorder.mjs',
      `import { appendFileSync } from 'node:fs';
       const asked = [];
       export default { name: 'recorder', run() {},
         refuses(call) { asked.push(JSON.stringify([call.config, [...call.x.data]])); return 'it only records'; },
         close() { process.stderr.write(asked.splice(0).join('\\n')); } };`,
    );
    const { stderr } = await xmoe(
      'check',
      '--backend',
      path,
      '--router',
      'switch',
      '--runs',
      '25',
      '--save',
      folder,
      ...args,
    );
    return new Set(stderr.split('\n'));
  };
  const whole = await asked();
  const shards = await Promise.all(['1/3', '2/3', '3/3'].map(shard => asked('--shard', shard)));
  assert.deepEqual(shards.flatMap(shard => [...shard]).sort(), [...whole].sort());
  assert.ok(whole.size > 15);
  assert.deepEqual(await asked('--shard', '2/3'), shards[1]);
  assert.notDeepEqual(await asked('--seed', '1'), whole);
});

test('an implementation that takes no call conforms to nothing: status 2', async () => {
  const path = module('refuser.mjs', `export default { name: 'refuser', refuses: () => 'not today', run() {} };`);
  const { status, stdout } = await xmoe('check', '--backend', path, '--runs', '5');
  assert.equal(status, 2);
  assert.match(stdout, /^5 of them not taken: not today$/m);
  assert.match(stdout, /^nothing was judged$/m);
});

function watchFor(path: string, then: () => void): void {
  if (existsSync(path)) then();
  else setTimeout(watchFor, 50, path, then);
}

test('Ctrl-C gives the report so far, and ends what was asked', {
  skip: process.platform === 'win32' && 'no signals',
}, async () => {
  const tells = module(
    'tells.mjs',
    `import { referenceF32 } from 'xmoe';
     let calls = 0;
     export default { ...referenceF32, name: 'tells', route(x, weights) {
       if (++calls === 20) process.stderr.write('.');
       return referenceF32.route(x, weights);
     } };`,
  );
  const asked = join(folder, 'asked');
  const forms: [string[], RegExp][] = [
    [['--backend', tells, '--runs', '10000000'], /^interrupted; so far conforms on [\d,]+ calls$/m],
    [
      [
        '--',
        'node',
        '-e',
        `process.stdin.once('data', () => require('fs').writeFileSync('${asked}', '')); setInterval(() => {}, 1000)`,
      ],
      /^interrupted; so far nothing was judged$/m,
    ],
  ];
  for (const [args, said] of forms) {
    const run = spawn(process.execPath, [MAIN, 'check', '--save', folder, ...args], { cwd: root });
    const stdout = new Response(run.stdout as unknown as ReadableStream).text();
    if (args[0] === '--') watchFor(asked, () => run.kill('SIGINT'));
    else run.stderr.once('data', () => run.kill('SIGINT'));
    assert.equal(await new Promise(resolve => run.once('exit', resolve)), 130);
    assert.match(await stdout, said);
  }
});

test('vectors are written, computed by somebody, and judged', async () => {
  const vectors = join(folder, 'vectors');
  const written = await xmoe('vectors', vectors, '--count', '12', '--grad', '--seed', '3');
  assert.deepEqual([written.status, written.stderr], [0, '']);
  const manifest = JSON.parse(readFileSync(join(vectors, 'manifest.json'), 'utf8'));
  assert.equal(manifest.cases.length, 12);
  assert.equal(readdirSync(vectors).length, 13);

  const none = await xmoe('check', '--files', vectors);
  assert.equal(none.status, 2);
  assert.match(none.stdout, /^12 of them not taken: no out\.safetensors for it$/m);

  for (const { name } of manifest.cases) {
    const { x, weights, config, inputs } = readLayerCase(readFileSync(join(vectors, `${name}.safetensors`)));
    const outputs = outputTensors(forward(referenceF32, x, weights, config, inputs));
    writeFileSync(join(vectors, `${name}.out.safetensors`), writeOutputs(outputs, 'F32', new Map()));
  }
  assert.equal((await xmoe('layer', join(vectors, 'case-03.safetensors'), '--grad')).status, 0);
  const right = await xmoe('check', '--files', vectors);
  assert.equal(right.status, 0, right.stdout);
  assert.match(right.stdout, /^conforms on 12 calls$/m);

  const { name } = manifest.cases[5];
  writeFileSync(join(vectors, `${name}.out.safetensors`), 'rubbish');
  const wrong = await xmoe('check', '--files', vectors);
  assert.equal(wrong.status, 1);
  assert.match(wrong.stdout, /^FAULT wrote rubbish: .* is no file of outputs: /m);
});

const badUsage: [string, string[], RegExp][] = [
  ['no backend', [], /"--backend" expected a backend, or a command after --, got nothing/],
  ['a backend and a command', ['--backend', 'wasm', '--', 'node'], /"--backend" expected nothing beside a command/],
  ['a module that is not there', ['--backend', './nowhere.mjs'], /"--backend" expected a module that loads, got /],
  [
    'a module without a layer',
    ['--backend', 'dist/erf.js'],
    /"dist\/erf.js" expected a Backend, an Implementation or a function/,
  ],
  ['a command that is not there', ['--', 'no-such-program'], /"command" expected a program that starts, got spawn/],
  ['an unknown arithmetic', ['--backend', 'wasm', '--arithmetic', 'f8'], /"--arithmetic" expected f64 \| .*, got "f8"/],
  ['an unknown router', ['--backend', 'wasm', '--router', 'topk,best'], /"--router" expected some of .*, got "best"/],
  [
    'a shard of none',
    ['--backend', 'wasm', '--shard', '0/3'],
    /"--shard" expected i\/n with i from 1 to n, got "0\/3"/,
  ],
  [
    'a replay of nothing',
    ['--backend', 'wasm', '--replay', 'nowhere'],
    /"--replay" expected a readable file, got ENOENT/,
  ],
  [
    'files and a backend',
    ['--files', 'src', '--backend', 'wasm'],
    /"--files" expected nothing to ask beside it, got wasm/,
  ],
  ['no such folder', ['--files', 'nowhere'], /"--files" expected a readable folder, got ENOENT/],
  ['a folder without cases', ['--files', 'src'], /"--files" expected a folder with layer cases, got none in src/],
];

for (const [what, args, message] of badUsage) {
  test(`check with ${what} is bad usage: one line, status 2`, async () => {
    const { status, stdout, stderr } = await xmoe('check', ...args);
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(stderr, message);
    assert.match(stderr, /^[^\n]+\n$/);
  });
}
