/** The kernels of the products against plain loops, bit for bit where the sums are rounded in a known order. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { assertSame, assertWithin } from './close.js';
import { Finish, type Kernels, loadKernels, NO_RELAXED, packed, targets, widths } from './kernels.js';
import { lay, memory, putAddresses, putDoubles, run } from './poison.js';
import { property } from './property.js';

/** One linear layer over some rows, and how its arrays lie. */
interface Call {
  readonly rows: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly seed: number;
  readonly spread: number;
  readonly gap: number;
  readonly last: number;
}

// Every tail and a few full tiles; no rows are legal, no inputs are not. Half of the outputs fill four panels at once.
const calls: fc.Arbitrary<Call> = fc.record({
  rows: fc.oneof(
    { weight: 2, arbitrary: fc.constant(0) },
    { weight: 8, arbitrary: fc.integer({ min: 1, max: 6 }) },
    { weight: 11, arbitrary: fc.integer({ min: 1, max: 19 }) },
    { weight: 3, arbitrary: fc.integer({ min: 20, max: 40 }) },
    { weight: 1, arbitrary: fc.integer({ min: 120, max: 200 }) },
  ),
  inputs: fc.oneof(
    { weight: 2, arbitrary: fc.constant(1) },
    { weight: 11, arbitrary: fc.integer({ min: 1, max: 19 }) },
    { weight: 3, arbitrary: fc.integer({ min: 20, max: 64 }) },
  ),
  outputs: fc.oneof(
    { weight: 6, arbitrary: fc.integer({ min: 1, max: 19 }) },
    { weight: 9, arbitrary: fc.integer({ min: 25, max: 100 }) },
    { weight: 2, arbitrary: fc.constantFrom(32, 48, 64) },
  ),
  seed: fc.integer(),
  spread: fc.constantFrom(0, 20),
  gap: fc.nat(3),
  last: fc.nat(),
});
const places = ['no rows', 'one input', 'whole panels', 'one row, panels over', 'two rows, panels over'];
const heights = [1, 2, 3, 4, 5, 6].map(rows => `tiles of ${rows}`);

function reachPlaces({ rows, inputs, outputs }: Call, width: number, reach: (place: string) => void): void {
  const panels = Math.ceil(outputs / width);
  if (rows === 0) reach('no rows');
  if (inputs === 1) reach('one input');
  if (outputs % width === 0) reach('whole panels');
  if (rows === 1 && panels > 4 && panels % 4 > 0) reach('one row, panels over');
  if (rows === 2 && panels > 2 && panels % 2 > 0) reach('two rows, panels over');
  if (rows > 0) reach(`tiles of ${Math.ceil(rows / Math.ceil(rows / 6))}`);
}

/** Uniform in [-1, 1) times 2^-spread … 2^spread; one in sixteen is 0, one in sixteen so small that products underflow. */
function numbers(seed: number, spread: number): (length: number) => Float32Array {
  let state = seed | 1;
  const draw = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  const next = () => {
    const kind = draw() % 16;
    const exponent = kind === 1 ? -70 : (draw() % (2 * spread + 1)) - spread;
    return kind === 0 ? 0 : (draw() / 2 ** 31 - 1) * 2 ** exponent;
  };
  return length => Float32Array.from({ length }, next);
}

const round = Math.fround;

/** x wᵀ + bias with every product and sum rounded to float32, in the order the kernels document. */
function chains({ rows, inputs, outputs }: Call, x: Float32Array, w: Float32Array, bias: Float32Array): Float32Array {
  return table(rows, outputs, (i, j) => {
    let sum = 0;
    for (let l = 0; l < inputs; l++) sum = round(sum + round(x[i * inputs + l] * w[j * inputs + l]));
    return sum + bias[j];
  });
}

function table(rows: number, cols: number, at: (i: number, j: number) => number): Float32Array {
  return Float32Array.from({ length: rows * cols }, (_, n) => at(Math.floor(n / cols), n % cols));
}

/** Each product and sum rounded at most once: (inputs + 2) 2^-24 of the sum of absolute values, none taken below 2^-60. */
function assertWithinBound(actual: Float32Array, call: Call, x: Float32Array, w: Float32Array, bias: Float32Array) {
  const { rows, inputs, outputs } = call;
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < outputs; j++) {
      let [sum, scale] = [bias[j], Math.abs(bias[j])];
      for (let l = 0; l < inputs; l++) {
        const [a, b] = [x[i * inputs + l], w[j * inputs + l]];
        sum += a * b;
        scale += Math.max(Math.abs(a), 2 ** -60) * Math.max(Math.abs(b), 2 ** -60);
      }
      assertWithin(actual[i * outputs + j], sum, (inputs + 2) * 2 ** -24 * scale, `[${i}, ${j}]`);
    }
  }
}

/** A linear layer's arrays in memory, its rows of x listed backwards and those of out too, and the kernels over them. */
function linear(kernels: Kernels, width: 8 | 16, call: Call) {
  const { rows: n, inputs: k, outputs, seed, spread, gap, last } = call;
  const panels = Math.ceil(outputs / width);
  const padded = panels * width;
  const draw = numbers(seed, spread);
  const at = lay(
    { x: n * k, w: padded * (k + 1), from: n, to: n, weights: n, out: n * padded, y: n * padded },
    gap,
    last,
  );
  const [x, w, bias] = [n * k, outputs * k, outputs].map(draw);
  at.x.floats.set(x);
  at.w.floats.set(packed(w, bias, width));
  at.weights.floats.set(draw(n));
  const initial = draw(n * 112).subarray(0, n * padded);
  const backwards = (ptr: number, stride: number) =>
    Array.from({ length: n }, (_, i) => ptr + 4 * stride * (n - 1 - i));
  putAddresses(at.from, backwards(at.x.ptr, k));
  putAddresses(at.to, backwards(at.y.ptr, padded));

  const kernel = kernels[`product_f32_${width}`];
  /** Rows of y in the order of x. */
  const product = (finish: number, tileRows = 4, numRows = n, from?: Float32Array, first = 0, end = panels) =>
    run(
      () => kernel(at.w.ptr, k, at.from.ptr, numRows, at.to.ptr, at.weights.ptr, first, end, finish, tileRows),
      at.y,
      from,
    );
  return {
    ...{ x, w, bias, at, initial, panels, padded, product },
    weights: at.weights.floats.slice(),
    /** The columns before the padding. */
    cut: (y: Float32Array) => table(n, outputs, (i, j) => y[i * padded + j]),
    combine: (rowsOfOut: Float32Array) => {
      for (let i = 0; i < n; i++)
        at.out.floats.set(rowsOfOut.subarray((n - 1 - i) * padded, (n - i) * padded), i * padded);
      return run(() => kernels.combine_f32(at.out.ptr, padded, at.weights.ptr, at.to.ptr, n, outputs), at.y, initial);
    },
  };
}

for (const target of targets) {
  const kernels = loadKernels(target, memory);
  if (kernels === undefined) {
    test(`${target}: the kernels`, { skip: NO_RELAXED });
    continue;
  }

  test(`${target}: the module exports its kernels alone`, () => {
    assert.deepEqual(Object.keys(kernels).sort(), [
      'activate_f32',
      'combine_f32',
      'product_f32_16',
      'product_f32_8',
      'route_f32',
      'sigmoid_f32',
      'softmax_f32',
    ]);
  });

  const how = target === 'simd' ? 'adds in the documented order' : 'is within its bound of float64';
  for (const width of widths) {
    property(
      `${target}: product_f32_${width} ${how}`,
      calls,
      (call, reach) => {
        const { x, w, bias, product, cut } = linear(kernels, width, call);
        const out = cut(product(Finish.STORE));
        if (target === 'simd') assertSame(out, chains(call, x, w, bias), 'out', true);
        assertWithinBound(out, call, x, w, bias);
        reachPlaces(call, width, reach);
      },
      [...places, ...heights],
    );

    property(`${target}: product_f32_${width} multiplies, or adds what combine_f32 adds`, calls, call => {
      const { product, combine, initial, weights, padded, cut } = linear(kernels, width, call);
      const out = product(Finish.STORE);
      const multiplied = product(Finish.MULTIPLY, 4, call.rows, initial);
      assertSame(cut(multiplied), cut(out.map((s, i) => s * initial[i])), 'multiplied', true);
      const added = product(Finish.ADD_WEIGHTED, 4, call.rows, initial);
      const [sums, before, after] = [out, initial, added].map(cut);
      for (let i = 0; i < sums.length; i++) {
        const term = weights[call.rows - 1 - Math.floor(i / call.outputs)] * sums[i];
        if (target === 'simd') assert.equal(after[i], round(before[i] + round(term)));
        // At most one rounding of the product, and one of the sum.
        const bound = 2 ** -24 * (2 * Math.abs(term) + Math.abs(before[i] + term)) + 2 ** -148;
        assertWithin(after[i], before[i] + term, bound, `y[${i}]`);
      }
      const combined = combine(out);
      assertSame(cut(combined), after, 'combine_f32', true);
      combined.forEach((value, i) => {
        if (i % padded >= call.outputs) assert.ok(Object.is(value, initial[i]), 'combine_f32 past its n columns');
      });
    });

    property(
      `${target}: product_f32_${width} gives the same bits again, for a row alone and panel by panel`,
      calls,
      call => {
        const { product, cut, initial, panels, padded, at } = linear(kernels, width, call);
        const out = product(Finish.STORE);
        const y = product(Finish.ADD_WEIGHTED, 4, call.rows, initial);
        assertSame(product(Finish.STORE), out, 'again', true);
        assertSame(product(Finish.ADD_WEIGHTED, 4, call.rows, initial), y, 'again', true);
        let byPanels = initial;
        for (let panel = 0; panel < panels; panel++) {
          byPanels = product(Finish.ADD_WEIGHTED, 4, call.rows, byPanels, panel, panel + 1);
        }
        assertSame(byPanels, y, 'panel by panel', true);
        const all = cut(out);
        // The first row of the list is the last of x; each of the others takes its place.
        const end = call.rows * call.inputs;
        for (let i = call.rows - 1; i >= 0; i--) {
          at.x.floats.copyWithin(end - call.inputs, i * call.inputs, (i + 1) * call.inputs);
          const row = product(Finish.STORE, 4, 1)
            .subarray((call.rows - 1) * padded)
            .subarray(0, call.outputs);
          assertSame(row, all.subarray(i * call.outputs, (i + 1) * call.outputs), `row ${i} alone`, true);
        }
      },
    );
  }

  property(`${target}: both sets of kernels give the same bits, in tiles of four rows and of six`, calls, call => {
    const results = widths.flatMap(width => {
      const { product, initial, padded } = linear(kernels, width, call);
      const cut = (y: Float32Array) => table(call.rows, call.outputs, (i, j) => y[i * padded + j]);
      // The two have rows of different lengths: what they add to has to be the same where both have a column.
      const before = initial.map((_, i) => Math.sin(Math.floor(i / padded) * 112 + (i % padded)));
      return [4, 6].map(tileRows => [
        cut(product(Finish.STORE, tileRows)),
        cut(product(Finish.ADD_WEIGHTED, tileRows, call.rows, before)),
      ]);
    });
    for (const [out, y] of results) {
      assertSame(out, results[0][0], 'sums', true);
      assertSame(y, results[0][1], 'added', true);
    }
  });

  property(
    `${target}: route_f32 is the float64 sum in order, rounded, in tiles of two tokens and of four`,
    calls,
    call => {
      const { rows: n, inputs: k, outputs: e, seed, spread, gap, last } = call;
      const draw = numbers(seed, spread);
      const [x, w] = [draw(n * k), draw(e * k)];
      const at = lay({ x: n * k, panels: 2 * Math.ceil(e / 8) * 8 * k, scratch: 8 * k + 64, logits: n * e }, gap, last);
      at.x.floats.set(x);
      putDoubles(at.panels, packedRouter(w, e, k));
      const expected = table(n, e, (i, j) => {
        let sum = 0;
        for (let l = 0; l < k; l++) sum += x[i * k + l] * w[j * k + l];
        return sum;
      });
      for (const tile of [2, 4]) {
        const route = () => kernels.route_f32(at.x.ptr, at.panels.ptr, at.logits.ptr, at.scratch.ptr, n, k, e, tile);
        assertSame(run(route, at.logits, undefined, at.scratch), expected, 'logits', true);
      }
    },
  );
}

/** w [e, k] in panels of eight: w[8p + j, l] at 8 (p k + l) + j. */
function packedRouter(w: Float32Array, e: number, k: number): Float64Array {
  const panels = new Float64Array(Math.ceil(e / 8) * 8 * k);
  for (let j = 0; j < e; j++)
    for (let l = 0; l < k; l++) panels[8 * (Math.floor(j / 8) * k + l) + (j % 8)] = w[j * k + l];
  return panels;
}
