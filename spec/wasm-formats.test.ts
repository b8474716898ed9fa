/** Experts stored as float16, bfloat16 and int8: what they compute, and that nothing changes a bit of it. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type Config, forward, type Matrix, reference, type Weights } from 'xmoe';
import { layerOfSizes } from 'xmoe/cases';
import { fromFloat64, toFloat64 } from 'xmoe/safetensors';
import { activationNames, layers, routerNames } from 'xmoe/spec';
import { type ExpertFormat, type WasmBackend, wasmBackend } from 'xmoe/wasm';
import { bits } from './bits.js';
import { property } from './property.js';

const formats = ['f16', 'bf16', 'int8'] as const;
const [exact, ...stored] = await Promise.all(
  (['f32', ...formats] as const).map(experts => wasmBackend({ deterministic: true, experts })),
);
const onThreads = await Promise.all(
  formats.map(experts => Promise.all([2, 5].map(threads => wasmBackend({ deterministic: true, experts, threads })))),
);
const relaxed: WasmBackend[] = await Promise.all(
  formats.map(experts => wasmBackend({ features: { relaxedSimd: 'enable' }, experts })),
).catch(() => []);

formats.forEach((format, i) => {
  property(
    `${format}: fused and in stages, again, and on any number of threads the bits are the same`,
    layers(),
    ({ x, weights, config, inputs }, reach) => {
      for (const oneThread of [stored[i], ...relaxed.slice(i, i + 1)]) {
        const layer = oneThread.load(weights, config);
        const expected = bits(layer.forward(x, inputs));
        assert.equal(bits(layer.forward(x, inputs)), expected);
        assert.equal(bits(forward(oneThread, x, weights, config, inputs).y), expected);
        layer.dispose();
      }
      const [expected, ...others] = [stored[i], ...onThreads[i]].map(backend => {
        const layer = backend.load(weights, config);
        const y = bits(layer.forward(x, inputs));
        layer.dispose();
        return y;
      });
      for (const y of others) assert.equal(y, expected);
      reach(config.router);
      reach(config.activation);
    },
    [...routerNames, ...activationNames],
    { share: 0.5 },
  );
});

/** Weights of experts rounded to a format; the router and the biases as they are. */
function rounded(weights: Weights, dtype: 'F16' | 'BF16'): Weights {
  const round = ({ rows, cols, data }: Matrix): Matrix => {
    return { rows, cols, data: toFloat64(fromFloat64(data, [rows, cols], dtype), 'w') };
  };
  const { up, gate, down } = weights;
  return { ...weights, up: up.map(round), down: down.map(round), ...(gate && { gate: gate.map(round) }) };
}

for (const [format, dtype] of [
  ['f16', 'F16'],
  ['bf16', 'BF16'],
] as const) {
  test(`${format} has the bits of f32 over weights rounded to it`, () => {
    for (const activation of activationNames) {
      const { x, weights, config } = layerOfSizes(40, 5, 37, 29, { activation, storage: 'f32' });
      const { y } = stored[formats.indexOf(format)].fused!(x, weights, config, {});
      assert.equal(bits(y), bits(exact.fused!(x, rounded(weights, dtype), config, {}).y), activation);
    }
  });
}

/** ‖y − reference‖ / ‖reference‖ on the same decisions, the router being that of f32. */
function relativeError(backend: WasmBackend, x: Matrix, weights: Weights, config: Config): number {
  const trace = forward(backend, x, weights, config);
  const plan = trace.plan;
  const expected = forward({ ...reference, dispatch: () => plan }, x, weights, config).y.data;
  let [squaredError, squared] = [0, 0];
  trace.y.data.forEach((y, i) => {
    squaredError += (y - expected[i]) ** 2;
    squared += expected[i] ** 2;
  });
  return Math.sqrt(squaredError / squared);
}

test('the errors of y are those of the formats: half a step of their weights, and of int8’s rows', () => {
  // Relative to each weight 2^-12 and 2^-9 at most; of int8, 1/254 of the largest in its row, twice: weights and rows.
  const most: Readonly<Record<Exclude<ExpertFormat, 'f32'>, number>> = { f16: 2 ** -12, bf16: 2 ** -9, int8: 2 / 100 };
  for (const [i, format] of formats.entries()) {
    for (const activation of ['relu', 'gelu', 'swiglu'] as const) {
      const { x, weights, config } = layerOfSizes(40, 4, 90, 70, { activation });
      for (const backend of [stored[i], ...relaxed.slice(i, i + 1)]) {
        const error = relativeError(backend, x, weights, config);
        assert.ok(
          error > most[format] / 20 && error < 2 * most[format],
          `${backend.name} ${format} ${activation} ${error}`,
        );
        assert.equal(backend.info.experts, format);
      }
    }
  }
});

test('decisions do not depend on how experts are stored', () => {
  const { x, weights, config } = layerOfSizes(200, 8, 40, 30);
  const expected = exact.fused!(x, weights, config, {}).plan;
  for (const backend of stored) assert.deepEqual(backend.fused!(x, weights, config, {}).plan, expected);
});

test('a weight that a format cannot hold is refused by name', () => {
  const { weights, config } = layerOfSizes(0, 2, 3, 4);
  const huge = { ...weights, down: weights.down.map(w => ({ ...w, data: w.data.map(() => 1e5) })) };
  const [f16, bf16] = stored;
  assert.throws(
    () => f16.load(huge, config),
    /^RangeError: "weights.down\[0\]" expected magnitudes below 65520 for f16/,
  );
  bf16.load(huge, config).dispose();
});

after(() => {
  for (const backend of [exact, ...stored, ...relaxed, ...onThreads.flat()]) backend.dispose();
});
