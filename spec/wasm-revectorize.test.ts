/** Vectors of 256 bits: never another bit, never without being asked, and the reason where they are not in use. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { forward } from 'xmoe';
import { layerOfSizes } from 'xmoe/cases';
import { activationNames, layers, routerNames } from 'xmoe/spec';
import { type WasmOptions, wasmBackend } from 'xmoe/wasm';
import { bits } from './bits.js';
import { compileKernels, outputsOf } from './internals.js';
import { loadKernels, memoryOf, NO_RELAXED, targets } from './kernels.js';
import { property } from './property.js';

const features = { relaxedSimd: false, revectorize: true };
const plain = await wasmBackend({ deterministic: true });
const wide = await wasmBackend({ features });

/** What this needs: Node 24 or later on x64, and not macOS. */
const reason = wide.info.notUsed.revectorize;
const onWide = { skip: reason };

/** What a program prints as JSON, run in a process of its own. `wasmBackend` and `features` are there. */
function program(source: string, env: Record<string, string> = {}): unknown {
  const door = new URL('../../dist/wasm/index.js', import.meta.url);
  const text = `
    import v8 from 'node:v8';
    import { syncBuiltinESMExports } from 'node:module';
    const { wasmBackend } = await import('${door}');
    const features = ${JSON.stringify(features)};
    const print = value => console.log(JSON.stringify(value));
    ${source}`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', text], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout);
}

test('they are not used unless they are asked for, and where they are the backend says so', async () => {
  assert.deepEqual(
    [plain.info.revectorized, plain.info.notUsed.revectorize],
    [false, 'options.features.revectorize is not asked for'],
  );
  const { kernels, revectorized } = wide.info;
  if (reason === undefined) assert.deepEqual([kernels.panelWidth, revectorized], [16, true]);
  else {
    assert.deepEqual([kernels.panelWidth, revectorized], [8, false]);
    assert.match(reason, /^(Node 24 and later have it|V8 has it on x64 alone|the kernels for it were not faster here)/);
  }
});

for (const target of targets) {
  test(`${target}: every set of kernels gives the same bits, which is what they are checked by`, async t => {
    if (target === 'relaxed' && !loadKernels(target, memoryOf(0))) return t.skip(NO_RELAXED);
    for (const experts of ['f32', 'f16', 'bf16', 'int8'] as const) {
      const outputs = async (panelWidth: 8 | 16, tileRows: 4 | 6, isShared = false, int8Dot = false) =>
        outputsOf(await compileKernels(target, isShared, { panelWidth, tileRows, int8Dot }), experts);
      const expected = await outputs(8, 4);
      assert.ok(expected.reduce((sum, words) => sum + words.length, 0) > 10_000);
      // The baseline compiler of V8 before Node 22 is wrong about that instruction, and it is not used there.
      const dots = 'Float16Array' in globalThis ? [outputs(8, 6, false, true), outputs(16, 6, false, true)] : [];
      for (const other of [outputs(8, 6), outputs(16, 4), outputs(16, 6), outputs(16, 6, true), ...dots]) {
        assert.deepEqual(await other, expected);
      }
    }
  });
}

test('an environment variable forbids them', () => {
  const open = 'print((await wasmBackend({ features })).info)';
  const info = (value: string) => program(open, { XMOE_NO_REVECTORIZE: value }) as typeof wide.info;
  assert.deepEqual(
    [info('1').revectorized, info('1').notUsed.revectorize],
    [false, 'the environment variable XMOE_NO_REVECTORIZE is set'],
  );
  assert.notEqual(info('0').notUsed.revectorize, info('1').notUsed.revectorize);
});

const RECORD_FLAGS = `
  const flags = [];
  const { setFlagsFromString } = v8;
  v8.setFlagsFromString = flag => { flags.push(flag); setFlagsFromString(flag); };
  syncBuiltinESMExports();`;

test('the flag is set once for each module, one after another, and taken back', onWide, () => {
  const flags = program(`${RECORD_FLAGS}
    const options = [{ features }, { features, threads: 2 }, { features }, { features, threads: 3 }];
    const backends = await Promise.all(options.map(wasmBackend));
    if (!backends.every(({ info }) => info.revectorized)) throw new Error('not used');
    for (const backend of backends) backend.dispose();
    print(flags);`);
  const [on, off] = ['--experimental-wasm-revectorize', '--no-experimental-wasm-revectorize'];
  assert.deepEqual(flags, [on, off, on, off]);
});

test('kernels that change a bit are not used', onWide, () => {
  const info = program(`
    const { Instance, Module } = WebAssembly;
    const isMarked = module => Module.customSections(module, 'xmoe.revectorize f32').length > 0;
    WebAssembly.Instance = class {
      constructor(module, imports) {
        const { exports } = new Instance(module, imports);
        if (!isMarked(module)) return { exports };
        const softmax_f32 = (logits, probs, numTokens, numExperts) => {
          exports.softmax_f32(logits, probs, numTokens, numExperts);
          new Int32Array(imports.env.memory.buffer, probs, 1)[0] ^= 1;
        };
        return { exports: { ...exports, softmax_f32 } };
      }
    };
    print((await wasmBackend({ features })).info)`) as typeof wide.info;
  assert.deepEqual([info.revectorized, info.kernels.panelWidth], [false, 8]);
  assert.match(info.notUsed.revectorize!, /^it changed \d+ of the numbers that it was checked with$/);
});

for (const relaxedSimd of reason === undefined ? [false, true] : []) {
  const open = (more: WasmOptions = {}) => wasmBackend({ features: { relaxedSimd, revectorize: true }, ...more });
  const [narrow, one, three] = await Promise.all([
    wasmBackend({ features: { relaxedSimd } }),
    open(),
    open({ threads: 3 }),
  ]);

  property(
    `${one.name}: with them and without, on any number of threads, fused and in stages, the bits are the same`,
    layers(),
    ({ x, weights, config, inputs }, reach) => {
      const expected = bits(narrow.fused!(x, weights, config, inputs).y);
      for (const backend of [one, three]) {
        assert.equal(bits(backend.fused!(x, weights, config, inputs).y), expected);
        assert.equal(bits(forward(backend, x, weights, config, inputs).y), expected);
      }
      reach(config.router);
      reach(config.activation);
    },
    [...routerNames, ...activationNames],
  );

  test(`${one.name}: large layers too`, async () => {
    assert.ok(one.info.revectorized && three.info.revectorized);
    for (const activation of activationNames) {
      const { x, weights, config } = layerOfSizes(300, 11, 150, 83, { activation });
      const [expected, ...others] = [narrow, one, three].map(backend => backend.load(weights, config).forward(x));
      for (const y of others) assert.equal(bits(y), bits(expected));
      assert.equal(bits(await three.load(weights, config).forwardAsync(x)), bits(expected));
    }
  });
}
