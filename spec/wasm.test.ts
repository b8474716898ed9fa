/** The WebAssembly backend against the reference: stage by stage, within computed bounds, and with the same bits every time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Config, forward, type Matrix, reference, type Weights } from 'xmoe';
import { layerOfSizes } from 'xmoe/cases';
import { type LayerCase, outputTensors, readLayerCase } from 'xmoe/layer-case';
import { runCase } from 'xmoe/oracle';
import { activationNames, type Layer, layers, noDrop, routerNames } from 'xmoe/spec';
import { type WasmBackend, wasmBackend } from 'xmoe/wasm';
import { bits } from './bits.js';
import { namesIn, readFile } from './environment.js';
import { property } from './property.js';

const folder = 'recordings/';
const recordings = (await namesIn(folder)).filter(name => name.endsWith('.safetensors'));
const load = async (name: string) => readLayerCase(await readFile(`${folder}${name}`));

const simd = await wasmBackend({ deterministic: true });
const relaxed = await wasmBackend({ features: { relaxedSimd: 'enable' } }).catch((error: Error) => error);
const targets: [string, WasmBackend | Error][] = [
  ['wasm', simd],
  ['wasm-relaxed', relaxed],
];

for (const [name, backend] of targets) {
  const options = backend instanceof Error ? { skip: backend.message } : {};
  test(`${name} is within its bounds on every recorded case, decisions equal`, options, async () => {
    for (const file of recordings) {
      const layerCase = await load(file);
      for (const { stage, verdict, error, detail } of runCase(backend as WasmBackend, layerCase).reports) {
        const isOpen = stage === 'kept' && layerCase.dropOrderOpen;
        assert.ok(verdict === 'agree' || isOpen, `${file} ${stage} ${error} ${detail}`);
      }
    }
  });
}

test('the fused call gives the bits of the stages', async () => {
  for (const file of recordings) {
    const { x, weights, config, inputs } = await load(file);
    const layer = simd.load(weights, config);
    assert.equal(bits(layer.forward(x, inputs)), bits(forward(simd, x, weights, config, inputs).y), file);
    layer.dispose();
  }
});

test('a token has the same bits alone, repeated, and after a larger call', async () => {
  const { x, weights, config } = await load('threshold-basic.safetensors');
  const layer = simd.load(weights, { ...config, capacityFactor: null });
  const alone = (t: number): Matrix => ({ rows: 1, cols: x.cols, data: x.data.subarray(t * x.cols, (t + 1) * x.cols) });
  const first = bits(layer.forward(alone(3)));
  const together = layer.forward(x);
  assert.equal(bits({ data: together.data.slice(3 * x.cols, 4 * x.cols) }), first);
  assert.equal(bits(layer.forward(alone(3))), first);
});

/** The layer with every number rounded to float32: what this backend is given exactly, and its bounds assume. */
function rounded(layer: Layer): Layer {
  const { router, up, upBias, gate, gateBias, down, downBias } = layer.weights;
  const round = (a: Matrix): Matrix => ({ ...a, data: Float64Array.from(a.data, Math.fround) });
  const weights: Weights = {
    router: round(router),
    up: up.map(round),
    down: down.map(round),
    ...(upBias && { upBias: round(upBias) }),
    ...(gate && { gate: gate.map(round) }),
    ...(gateBias && { gateBias: round(gateBias) }),
    ...(downBias && { downBias: round(downBias) }),
  };
  return { ...layer, x: round(layer.x), weights };
}

/** A case whose recorded outputs are the reference's. */
function caseOf({ config, weights, x, inputs }: Layer): LayerCase {
  const recorded = outputTensors(forward(reference, x, weights, config, inputs));
  return { name: 'random', config, weights, x, inputs, recorded, dropOrderOpen: false };
}

const rowBits = (y: Matrix, t: number) => bits({ ...y, data: y.data.slice(t * y.cols, (t + 1) * y.cols) });

for (const [name, backend] of targets) {
  if (backend instanceof Error) continue;

  property(
    `${name} is within its bounds on random layers, and decides as its own probabilities say`,
    layers(),
    (layer, reach) => {
      const { reports } = runCase(backend, caseOf(rounded(layer)));
      for (const { stage, verdict, error, allowed, detail } of reports) {
        assert.notEqual(verdict, 'disagree', `${stage}: ${error}, allowed ${allowed}, ${detail}`);
      }
      reach(layer.config.router);
      reach(layer.config.activation);
    },
    [...routerNames, ...activationNames],
  );

  property(
    `${name} gives the same bits fused, in stages, and again`,
    layers(),
    layer => {
      const { x, weights, config, inputs } = rounded(layer);
      const loaded = backend.load(weights, config);
      const once = bits(loaded.forward(x, inputs));
      assert.equal(once, bits(forward(backend, x, weights, config, inputs).y));
      assert.equal(once, bits(loaded.forward(x, inputs)));
      loaded.dispose();
    },
    [],
    { share: 0.5 },
  );

  property(
    `${name}: with no drops the bits of a token do not depend on its batch`,
    layers({ routers: ['threshold', 'dense', 'switch', 'base_eval'], capacities: noDrop, masks: ['absent'] }),
    layer => {
      const { x, weights, config } = rounded(layer);
      const loaded = backend.load(weights, config);
      const y = loaded.forward(x);
      for (let t = 0; t < x.rows; t += 7) {
        const alone = { rows: 1, cols: x.cols, data: x.data.slice(t * x.cols, (t + 1) * x.cols) };
        assert.equal(bits(loaded.forward(alone)), rowBits(y, t));
      }
      loaded.dispose();
    },
    [],
    { share: 0.5 },
  );
}

test('the first call of a layer, which makes its memory grow, is right for every router', () => {
  for (const router of routerNames) {
    for (const numTokens of [1, 19, 600]) {
      const layer = rounded(layerOfSizes(numTokens, 8, 18, 9, { router }));
      const loaded = simd.load(layer.weights, layer.config);
      const y = bits(loaded.forward(layer.x, layer.inputs));
      assert.equal(y, bits(loaded.forward(layer.x, layer.inputs)), router);
      assert.equal(y, bits(forward(simd, layer.x, layer.weights, layer.config, layer.inputs).y), router);
      loaded.dispose();
    }
  }
});

/** One expert of width 1 on one feature that says `factor` · relu(x). */
function tiny(factor: number): [Weights, Config] {
  const one = (value: number): Matrix => ({ rows: 1, cols: 1, data: Float64Array.of(value) });
  return [
    { router: one(0), up: [one(1)], down: [one(factor)] },
    { router: 'threshold', numExperts: 1, threshold: 0.9, capacityFactor: null, activation: 'relu' },
  ];
}

const two: Matrix = { rows: 1, cols: 1, data: Float64Array.of(2) };

test('layers and backends live side by side, and T = 0 is a call', async () => {
  const other = await wasmBackend({ deterministic: true });
  const layers = [simd.load(...tiny(3)), simd.load(...tiny(5)), other.load(...tiny(7))];
  assert.deepEqual(
    layers.map(layer => layer.forward(two).data[0]),
    [6, 10, 14],
  );
  assert.deepEqual(layers[0].forward({ rows: 0, cols: 1, data: new Float64Array(0) }), {
    rows: 0,
    cols: 1,
    data: new Float32Array(0),
  });
  layers[0].dispose();
  layers[0].dispose();
  assert.throws(() => layers[0].forward(two), /"layer" expected one in use/);
  assert.equal(layers[1].forward(two).data[0], 10);
  other.dispose();
  assert.throws(() => layers[2].forward(two), /"layer" expected one in use/);
  assert.throws(() => other.load(...tiny(1)), /"backend" expected one in use/);
  assert.throws(() => forward(other, two, ...tiny(1)), /"backend" expected one in use/);
});

test('what float32 cannot hold is refused by name', () => {
  assert.throws(
    () => simd.load(...tiny(1e39)),
    /"weights.down" expected values within float32 .*, got 1e\+39 at \[0, 0\]/,
  );
  const layer = simd.load(...tiny(1));
  assert.throws(
    () => layer.forward({ rows: 1, cols: 1, data: Float64Array.of(-1e39) }),
    /"x" expected values within float32/,
  );
  assert.throws(
    () => layer.forward({ rows: 1, cols: 1, data: Float64Array.of(Number.NaN) }),
    /"x" expected finite values, got NaN/,
  );
  assert.throws(() => layer.forward({ rows: 1, cols: 2, data: new Float64Array(2) }), /"x" expected shape \[T, 1\]/);
  layer.dispose();
});

test('the backend says which target it runs, and why not another', async () => {
  assert.deepEqual([simd.name, simd.info.target], ['wasm', 'simd']);
  if (relaxed instanceof Error)
    assert.match(relaxed.message, /^"engine" expected relaxed SIMD, got an engine without it/);
  else {
    assert.deepEqual([relaxed.name, relaxed.info.target], ['wasm-relaxed', 'relaxed']);
    assert.ok(!('relaxedSimd' in relaxed.info.notUsed));
    const deterministic = await wasmBackend({ deterministic: true });
    assert.equal(deterministic.info.notUsed.relaxedSimd, 'options.deterministic is true');
    const refused = await wasmBackend({ features: { relaxedSimd: false } });
    assert.deepEqual(
      [refused.info.target, refused.info.notUsed.relaxedSimd],
      ['simd', 'options.features.relaxedSimd is false'],
    );
    assert.equal((await wasmBackend()).info.target, 'relaxed');
  }
});

const badOptions: [object, RegExp][] = [
  [
    { target: 'simd' },
    /^TypeError: "options" expected none but deterministic, experts, features, threads, got "target"$/,
  ],
  [
    { features: { simd: true } },
    /^TypeError: "options.features" expected none but relaxedSimd, revectorize, got "simd"$/,
  ],
  [{ features: true }, /^TypeError: "options.features" expected an object, got true$/],
  [
    { features: { relaxedSimd: 'yes' } },
    /^RangeError: "options.features.relaxedSimd" expected true \| false \| enable, got "yes"$/,
  ],
  [
    { features: { revectorize: 'enable' } },
    /^TypeError: "options.features.revectorize" expected true \| false, got "enable"$/,
  ],
  [{ experts: 'int4' }, /^RangeError: "options.experts" expected f32 \| f16 \| bf16 \| int8, got "int4"$/],
  [{ deterministic: 1 }, /^TypeError: "options.deterministic" expected true \| false, got 1$/],
  ...[true, 'enable'].map((relaxedSimd): [object, RegExp] => [
    { features: { relaxedSimd }, deterministic: true },
    /^RangeError: "options.features.relaxedSimd" expected false or none where options.deterministic is true, got/,
  ]),
];

test('options that are none are refused by name', async () => {
  for (const [options, message] of badOptions) await assert.rejects(wasmBackend(options), message);
  // @ts-expect-error: a caller without types
  await assert.rejects(wasmBackend('relaxed'), /TypeError: "options" expected an object, got "relaxed"/);
});

test('the reference and the backend make the same decisions on real text', async () => {
  const { x, weights, config, inputs } = await load('real-text-layer3.safetensors');
  const [ours, theirs] = [simd, reference].map(backend => forward(backend, x, weights, config, inputs));
  assert.deepEqual(ours.plan.selection, theirs.plan.selection);
  assert.deepEqual(ours.plan.kept, theirs.plan.kept);
});
