/** The kernels of the products against plain loops, bit for bit where the sums are rounded in a known order. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { assertSame, assertWithin } from './close.js';
import { type Kernels, loadKernels, NO_RELAXED, packed, targets } from './kernels.js';
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
    { weight: 9, arbitrary: fc.integer({ min: 25, max: 70 }) },
    { weight: 2, arbitrary: fc.constantFrom(32, 40) },
  ),
  seed: fc.integer(),
  spread: fc.constantFrom(0, 20),
  gap: fc.nat(3),
  last: fc.nat(),
});
const places = ['no rows', 'one input', 'whole panels', 'one more panel', 'rows mod 4 = 3', 'one wide', 'two wide'];

function reachPlaces({ rows, inputs, outputs }: Call, reach: (place: string) => void): void {
  const panels = Math.ceil(outputs / 8);
  if (rows === 0) reach('no rows');
  if (inputs === 1) reach('one input');
  if (outputs % 8 === 0) reach('whole panels');
  if (panels > 4 && panels % 4 > 0) reach('one more panel');
  if (rows % 4 === 3) reach('rows mod 4 = 3');
  if (rows % 4 === 1 && panels >= 4) reach('one wide');
  if (rows % 4 === 2 && panels >= 2) reach('two wide');
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

/** An expert's arrays in memory, its rows of x listed backwards and its targets too, and the kernels over them. */
function expert(kernels: Kernels, call: Call) {
  const { rows, inputs, outputs, seed, spread, gap, last } = call;
  const width = kernels.panelWidth.value;
  const panels = Math.ceil(outputs / width);
  const padded = panels * width;
  const [n, k] = [rows, inputs];
  const draw = numbers(seed, spread);
  const at = lay(
    // biome-ignore format: a table
    { x: n * k, w: padded * k, bias: padded, gate: padded * k, gateBias: padded, list: n, targets: n, weights: n, out: n * padded, y: n * padded },
    gap,
    last,
  );
  const [x, w, bias, gate, gateBias] = [n * k, outputs * k, outputs, outputs * k, outputs].map(draw);
  at.x.floats.set(x);
  at.w.floats.set(packed(w, outputs, k, width));
  at.gate.floats.set(packed(gate, outputs, k, width));
  at.bias.floats.fill(0).set(bias);
  at.gateBias.floats.fill(0).set(gateBias);
  at.weights.floats.set(draw(n));
  const initial = draw(n * padded);
  const backwards = (ptr: number, stride: number) =>
    Array.from({ length: n }, (_, i) => ptr + 4 * stride * (n - 1 - i));
  putAddresses(at.list, backwards(at.x.ptr, k));
  putAddresses(at.targets, backwards(at.y.ptr, padded));

  /** The columns before the padding; of rows in the other order, if `reversed`. */
  const cut = (out: Float32Array, reversed = false) =>
    table(n, outputs, (i, j) => out[(reversed ? n - 1 - i : i) * padded + j]);
  const [weights, gates] = [[at.w.ptr, at.bias.ptr] as const, [at.gate.ptr, at.gateBias.ptr] as const];
  const [list, targets, out] = [at.list.ptr, at.targets.ptr, at.out.ptr];
  const down = (of: readonly [number, number], numRows = n) =>
    run(() => kernels.down_f32(at.x.ptr, k, numRows, ...of, out, padded, k, 0, panels), at.out);
  return {
    ...{ x, w, bias, at, initial, panels, padded, cut },
    down: (numRows = n) => down(weights, numRows),
    downOfGate: () => down(gates),
    activate: (h: Float32Array, id: number) => run(() => kernels.activate_f32(out, out, n * padded, id), at.out, h),
    up: (id: number) => run(() => kernels.up_f32(list, n, ...weights, out, k, panels, id), at.out),
    gated: (id: number) => run(() => kernels.up_gated_f32(list, n, ...weights, ...gates, out, k, panels, id), at.out),
    downCombine: (first = 0, end = panels, from = initial) =>
      run(
        () => kernels.down_combine_f32(at.x.ptr, k, n, ...weights, at.weights.ptr, targets, k, first, end),
        at.y,
        from,
      ),
    combine: (rowsOfOut: Float32Array) => {
      at.out.floats.set(rowsOfOut);
      return run(() => kernels.combine_f32(out, padded, at.weights.ptr, targets, n, outputs), at.y, initial);
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
      'down_combine_f32',
      'down_f32',
      'panelWidth',
      'route_f32',
      'sigmoid_f32',
      'softmax_f32',
      'tileRows',
      'up_f32',
      'up_gated_f32',
    ]);
  });

  const how = target === 'simd' ? 'adds in the documented order' : 'is within its bound of float64';
  property(
    `${target}: down_f32 ${how}`,
    calls,
    (call, reach) => {
      const { x, w, bias, down, cut } = expert(kernels, call);
      const out = cut(down());
      if (target === 'simd') assertSame(out, chains(call, x, w, bias), 'out', true);
      assertWithinBound(out, call, x, w, bias);
      reachPlaces(call, reach);
    },
    places,
  );

  property(
    `${target}: up_f32 is σ of the sums of down_f32, and up_gated_f32 multiplies by σ of the gate's`,
    fc.tuple(calls, fc.integer({ min: 0, max: 3 })),
    ([call, id]) => {
      const { down, downOfGate, up, gated, activate, cut } = expert(kernels, call);
      const sums = down();
      const gates = cut(activate(downOfGate(), id));
      assertSame(cut(up(id), true), cut(activate(sums, id)), 'up', true);
      assertSame(
        cut(gated(id), true),
        cut(sums).map((s, i) => s * gates[i]),
        'gated',
        true,
      );
    },
  );

  property(`${target}: down_combine_f32 adds the weighted rows, and combine_f32 gives its bits`, calls, call => {
    const { down, downCombine, combine, initial, at, padded, cut } = expert(kernels, call);
    const [rows, y, before] = [down(), downCombine(), cut(initial, true)];
    const [out, after] = [cut(rows), cut(y, true)];
    for (let i = 0; i < out.length; i++) {
      const product = at.weights.floats[Math.floor(i / call.outputs)] * out[i];
      const sum = before[i] + product;
      if (target === 'simd') assert.equal(after[i], round(before[i] + round(product)));
      // At most one rounding of the product, and one of the sum.
      assertWithin(after[i], sum, 2 ** -24 * (2 * Math.abs(product) + Math.abs(sum)) + 2 ** -148, `y[${i}]`);
    }
    const combined = combine(rows);
    assertSame(cut(combined, true), after, 'combine_f32', true);
    combined.forEach((value, i) => {
      if (i % padded >= call.outputs) assert.ok(Object.is(value, initial[i]), 'combine_f32 past its n columns');
    });
  });

  property(`${target}: the same bits again, for a row alone, panel by panel, and in tiles of six rows`, calls, call => {
    const { down, downCombine, cut, initial, panels, at } = expert(kernels, call);
    const [out, y] = [down(), downCombine()];
    assertSame(down(), out, 'again', true);
    assertSame(downCombine(), y, 'again', true);
    let byPanels = initial;
    for (let panel = 0; panel < panels; panel++) byPanels = downCombine(panel, panel + 1, byPanels);
    assertSame(byPanels, y, 'panel by panel', true);
    if (target === 'relaxed') {
      kernels.tileRows.value = 6;
      const [outOfSixes, yOfSixes] = [down(), downCombine()];
      kernels.tileRows.value = 4;
      assertSame(outOfSixes, out, 'tiles of six rows', true);
      assertSame(yOfSixes, y, 'tiles of six rows', true);
    }
    const all = cut(out);
    // The first row is alone already; each of the others takes its place.
    for (let i = 0; i < call.rows; i++) {
      at.x.floats.copyWithin(0, i * call.inputs, (i + 1) * call.inputs);
      const row = down(1).subarray(0, call.outputs);
      assertSame(row, all.subarray(i * call.outputs, (i + 1) * call.outputs), `row ${i} alone`, true);
    }
  });

  property(`${target}: route_f32 is the float64 sum in order, rounded`, calls, call => {
    const { rows: n, inputs: k, outputs: e, seed, spread, gap, last } = call;
    const draw = numbers(seed, spread);
    const [x, w] = [draw(n * k), draw(e * k)];
    const panels = packed(w, e, k, 8);
    const at = lay({ x: n * k, panels: 2 * panels.length, scratch: 4 * k, logits: n * e }, gap, last);
    at.x.floats.set(x);
    putDoubles(at.panels, panels);
    const route = () => kernels.route_f32(at.x.ptr, at.panels.ptr, at.logits.ptr, at.scratch.ptr, n, k, e);
    const logits = run(route, at.logits, undefined, at.scratch);
    const expected = table(n, e, (i, j) => {
      let sum = 0;
      for (let l = 0; l < k; l++) sum += x[i * k + l] * w[j * k + l];
      return sum;
    });
    assertSame(logits, expected, 'logits', true);
  });
}
