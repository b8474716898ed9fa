/** Whole layers whose experts are stored in fewer bits, on every target and set of kernels. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  activations,
  type DispatchPlan,
  forward,
  type Matrix,
  quantizedOutput,
  quantizeRow,
  quantizeWeights,
  reference,
  type Weights,
} from 'xmoe';
import { layerOfSizes } from 'xmoe/cases';
import { outputTensors } from 'xmoe/layer-case';
import { arithmeticNamed, errorBounds } from 'xmoe/oracle';
import { activationNames, type Layer, layers, noDrop } from 'xmoe/spec';
import { assertSame } from './close.js';
import { compileKernels, fused, Memory, packWeights, runAlone, runExperts, workspaceOver } from './internals.js';
import { loadKernels, memoryOf, NO_RELAXED, targets, widths } from './kernels.js';
import { property } from './property.js';

type ExpertFormat = NonNullable<Parameters<typeof packWeights>[3]>;
type KernelModule = Awaited<ReturnType<typeof compileKernels>>;

const wanted = { masks: ['absent'], capacities: noDrop, routers: ['threshold', 'dense', 'hash'] } as const;
const { fround } = Math;

function open(module: KernelModule, weights: Weights, format: ExpertFormat) {
  const { memory, packed } = packWeights(weights, module, numBytes => new Memory(numBytes, false), format);
  return { ...workspaceOver(module, memory), packed };
}

/** y, from the loops for so many threads. */
function yOf(space: ReturnType<typeof open>, { x, inputs, config }: Layer, numThreads = 1): Matrix {
  return runAlone({ space, loops: fused(x, inputs, config)(space, numThreads) }).y;
}

/** The rows of every stage of the experts. */
function expertRows(space: ReturnType<typeof open>, { x, config }: Layer, plan: DispatchPlan) {
  return runAlone({ space, loops: runExperts(x, plan, config)(space, 1) });
}

/** The layer with float32 numbers, and its experts' weights made by `value`. */
function rounded({ weights, x, ...rest }: Layer, value: (weight: number) => number): Layer {
  const map = (a: Matrix, f: (v: number) => number): Matrix => ({ ...a, data: Float64Array.from(a.data, f) });
  const { router, up, upBias, gate, gateBias, down, downBias } = weights;
  return {
    ...rest,
    x: map(x, fround),
    weights: {
      router: map(router, fround),
      up: up.map(w => map(w, value)),
      down: down.map(w => map(w, value)),
      ...(upBias && { upBias: map(upBias, fround) }),
      ...(gate && { gate: gate.map(w => map(w, value)) }),
      ...(gateBias && { gateBias: map(gateBias, fround) }),
      ...(downBias && { downBias: map(downBias, fround) }),
    },
  };
}

/** A number of `fractionBits` fraction bits near v: what v is on a grid of its own power of two, cut. */
function onGrid(v: number, fractionBits: number): number {
  if (v === 0 || Math.abs(v) < 2 ** -10) return 0;
  const unit = 2 ** (Math.floor(Math.log2(Math.abs(v))) - fractionBits);
  return Math.trunc(v / unit) * unit;
}

const numbersOf = (format: 'f16' | 'bf16') => (format === 'f16' ? 10 : 7);

for (const target of targets) {
  if (loadKernels(target, memoryOf(0)) === undefined) {
    test(`${target}: layers of stored weights`, { skip: NO_RELAXED });
    continue;
  }
  const [narrow, ...others] = await Promise.all(
    [{ panelWidth: 8, tileRows: 4 }, ...widths.map(panelWidth => ({ panelWidth, tileRows: 6 }) as const)].map(set =>
      compileKernels(target, false, set as KernelModule['set']),
    ),
  );

  for (const format of ['f32', 'f16', 'bf16', 'int8'] as const) {
    property(
      `${target}, ${format}: the same bits in one call, in loops, again, and with every set of kernels`,
      layers({ ...wanted }),
      layer => {
        const loaded = open(narrow, layer.weights, format);
        const y = yOf(loaded, layer);
        assertSame(yOf(loaded, layer).data, y.data, 'again', true);
        assertSame(yOf(loaded, layer, 3).data, y.data, 'in loops', true);
        for (const module of others) {
          assertSame(yOf(open(module, layer.weights, format), layer).data, y.data, 'another set', true);
        }
      },
      [],
      { share: 0.5 },
    );
  }

  for (const format of ['f16', 'bf16'] as const) {
    property(
      `${target}, ${format}: a layer has the bits of float32 over the weights that its own are nearest to`,
      layers(wanted),
      (random, reach) => {
        const stored = rounded(random, v => onGrid(v, numbersOf(format)));
        // Less than half of the last place away.
        const near = rounded(
          stored,
          v => v * (1 + ((v * 7.7 - Math.floor(v * 7.7) - 0.5) * 0.9 * 2 ** -numbersOf(format)) / 2),
        );
        const expected = yOf(open(narrow, stored.weights, 'f32'), stored);
        assertSame(yOf(open(narrow, near.weights, format), stored).data, expected.data, 'y', true);
        if (near.weights.up[0].data.some((v, i) => v !== stored.weights.up[0].data[i])) reach('rounded');
      },
      ['rounded'],
      { share: 0.5 },
    );
  }

  property(
    `${target}, int8: the rows of every stage are those of the definition`,
    layers({ ...wanted, activations: ['relu', 'silu'] }),
    random => {
      const layer = rounded(random, fround);
      const { weights, x, config } = layer;
      const plan = forward(reference, x, weights, config, layer.inputs).plan;
      const { hidden, out } = expertRows(open(narrow, weights, 'int8'), layer, plan);
      const numSkip = plan.selection.numExperts - weights.up.length;
      for (let e = 0; e < weights.up.length; e++) {
        const [up, down] = [weights.up[e], weights.down[e]].map(rowsOf).map(rows => rows.map(quantizeWeights));
        for (let i = plan.expertOffsets[e + numSkip]; i < plan.expertOffsets[e + numSkip + 1]; i++) {
          const given = quantizeRow(rowOf(x, plan.tokenIndex[i]));
          const h = rowOf(hidden, i);
          if (config.activation === 'relu') {
            const expected = up.map((w, j) => quantizedOutput(given, w, biasOf(weights.upBias, e, j)));
            assertSame(h, expected.map(activations.relu.apply), 'hidden', false);
          }
          const encoded = quantizeRow(h);
          const expected = down.map((w, j) => quantizedOutput(encoded, w, biasOf(weights.downBias, e, j)));
          assertSame(rowOf(out, i), expected, 'out', false);
        }
      }
    },
    [],
    { share: 0.5 },
  );

  /** The error of y over its bound at worst, and of all of y over its length. */
  const errorOf = (layer: Layer, format: ExpertFormat) => {
    const { weights, x, inputs, config } = layer;
    const trace = forward(reference, x, weights, config, inputs);
    const { out } = expertRows(open(narrow, weights, format), layer, trace.plan);
    const y = reference.combine(out, trace.plan);
    const kept = outputTensors(trace).get('kept')!.data as Uint8Array;
    const bound = errorBounds({ weights, x, config, inputs }, kept, arithmeticNamed('int8')).get('y')!.error;
    let [worst, squaredError, squared] = [0, 0, 0];
    for (let i = 0; i < y.data.length; i++) {
      const error = Math.abs(y.data[i] - trace.y.data[i]);
      assert.ok(error <= bound[i], `y[${i}]: expected ${trace.y.data[i]} ± ${bound[i]}, got ${y.data[i]}`);
      if (error > 0) worst = Math.max(worst, error / bound[i]);
      squaredError += error ** 2;
      squared += trace.y.data[i] ** 2;
    }
    return { worst, relative: Math.sqrt(squaredError / squared) };
  };

  property(
    `${target}, int8: y is within the bound of its codes`,
    layers({ ...wanted, activations: activationNames }),
    (random, reach) => {
      errorOf(rounded(random, fround), 'int8');
      reach(random.config.activation);
    },
    activationNames,
    { share: 0.5 },
  );

  test(`${target}: a weight that a half cannot hold is named, before anything is laid out`, () => {
    const { weights } = layerOfSizes(1, 2, 3, 4);
    for (const [format, large] of [
      ['f16', 65520],
      ['bf16', 2 ** 128 - 2 ** 119],
    ] as const) {
      const down = weights.down.map((w, e) => ({
        ...w,
        data: w.data.map((v, i) => (e === 1 && i === 6 ? -large : v)),
      }));
      const noMemory = () => assert.fail('memory was taken');
      assert.throws(
        () => packWeights({ ...weights, down }, narrow, noMemory, format),
        new RegExp(`"weights.down\\[1\\]" expected magnitudes below .* for ${format}, got -.* at \\[1, 2\\]`),
      );
      const smaller = down.map(w => ({ ...w, data: w.data.map(v => v * (1 - 2 ** -20)) }));
      packWeights({ ...weights, down: smaller }, narrow, numBytes => new Memory(numBytes, false), format);
    }
  });

  test(`${target}: how far a layer of 8 experts of 96 on width 192 is off in each format`, t => {
    for (const activation of ['relu', 'swiglu'] as const) {
      const layer = rounded(layerOfSizes(32, 8, 192, 96, { activation, capacity: { capacityFactor: null } }), fround);
      for (const format of ['f32', 'f16', 'bf16', 'int8'] as const) {
        const { worst, relative } = errorOf(layer, format);
        t.diagnostic(
          `${activation}, ${format}: ${relative.toExponential(1)} of y; at most ${worst.toFixed(3)} of the bound of int8`,
        );
      }
    }
  });
}

function rowOf({ data, cols }: Matrix, i: number): Float64Array {
  return Float64Array.from(data.subarray(i * cols, (i + 1) * cols));
}

function rowsOf(a: Matrix): Float64Array[] {
  return Array.from({ length: a.rows }, (_, i) => rowOf(a, i));
}

function biasOf(biases: Matrix | undefined, e: number, j: number): number {
  return biases ? biases.data[e * biases.cols + j] : 0;
}
