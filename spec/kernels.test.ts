/** The kernels of the products against plain loops, bit for bit where the sums are rounded in a known order. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertSame, assertWithin } from './close.js';
import { formats, type Kernels, loadKernels, NO_RELAXED, packed, targets, type Width, widths } from './kernels.js';
import { type Call, calls, corners, heights, numbers, places, reachPlaces, table } from './kernels-calls.js';
import { lay, memory, putAddresses, putBytes, putDoubles, type Region, run } from './poison.js';
import { property } from './property.js';

const round = Math.fround;

/** x wᵀ + bias with every product and sum rounded to float32, in the order the kernels document. */
function chains({ rows, inputs, outputs }: Call, x: Float32Array, w: Float32Array, bias: Float32Array): Float32Array {
  return table(rows, outputs, (i, j) => {
    let sum = 0;
    for (let l = 0; l < inputs; l++) sum = round(sum + round(x[i * inputs + l] * w[j * inputs + l]));
    return sum + bias[j];
  });
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
function linear(kernels: Kernels, width: Width, call: Call) {
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
  putBytes(at.w, packed({ n: outputs, k, weights: w, bias }, 'f32', 'simd', width));
  at.weights.floats.set(draw(n));
  const initial = draw(n * padded);
  const list = (from: Region, fromStride: number) => {
    const backwards = (ptr: number, stride: number) =>
      Array.from({ length: n }, (_, i) => ptr + 4 * stride * (n - 1 - i));
    putAddresses(at.from, backwards(from.ptr, fromStride));
    putAddresses(at.to, backwards(at.y.ptr, padded));
  };
  const kernel = kernels[`product_f32_${width}`];
  return {
    ...{ x, w, bias, at, initial, panels, padded },
    weights: at.weights.floats.slice(),
    /** Rows in the order of x, padding included. */
    product({ tileRows = 4, numRows = n, onto = undefined as Float32Array | undefined, first = 0, end = panels } = {}) {
      list(at.x, k);
      return run(() => kernel(at.w.ptr, k, at.from.ptr, numRows, at.to.ptr, first, end, tileRows, 0), at.y, onto);
    },
    /** The columns before the padding. */
    cut: (y: Float32Array) => table(n, outputs, (i, j) => y[i * padded + j]),
    /** Rows plus weighted rows of `out`. */
    combine(out: Float32Array, onto: Float32Array, first = 0, end = outputs) {
      at.out.floats.set(out);
      list(at.out, padded);
      return run(() => kernels.combine_f32(at.from.ptr, at.weights.ptr, at.to.ptr, n, first, end), at.y, onto);
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
    const products = formats.flatMap(format => widths.map(width => `product_${format}_${width}`));
    const model = ['add_norm', 'attend', 'store_heads'];
    const layer = ['activate', 'combine', 'multiply', 'place', 'route', 'select', 'sigmoid', 'softmax'];
    const others = [...layer, ...model].map(name => `${name}_f32`);
    assert.deepEqual(Object.keys(kernels).sort(), [...products, ...others, 'quantize_i7'].sort());
  });

  const most = target === 'simd' ? 4 : 6; // rows of a tile
  const how = target === 'simd' ? 'adds in the documented order' : 'is within its bound of float64';
  for (const width of widths) {
    property(
      `${target}: product_f32_${width} ${how}`,
      calls,
      (call, reach) => {
        const { x, w, bias, product, cut } = linear(kernels, width, call);
        const out = cut(product({ tileRows: most }));
        if (target === 'simd') assertSame(out, chains(call, x, w, bias), 'out', true);
        assertWithinBound(out, call, x, w, bias);
        reachPlaces(call, width, most, reach);
      },
      [...places, ...heights(most)],
      { examples: corners },
    );

    const same = 'gives the same bits again, for a row alone and panel by panel';
    property(`${target}: product_f32_${width} ${same}`, calls, call => {
      const { product, cut, panels, padded, at } = linear(kernels, width, call);
      const out = product();
      assertSame(product(), out, 'again', true);
      let byPanels: Float32Array | undefined;
      for (let panel = 0; panel < panels; panel++) {
        byPanels = product({ onto: byPanels, first: panel, end: panel + 1 });
      }
      assertSame(byPanels!, out, 'panel by panel', true);
      const all = cut(out);
      // The first row of the list is the last of x; each of the others takes its place.
      const end = call.rows * call.inputs;
      for (let i = call.rows - 1; i >= 0; i--) {
        at.x.floats.copyWithin(end - call.inputs, i * call.inputs, (i + 1) * call.inputs);
        const row = product({ numRows: 1 })
          .subarray((call.rows - 1) * padded)
          .subarray(0, call.outputs);
        assertSame(row, all.subarray(i * call.outputs, (i + 1) * call.outputs), `row ${i} alone`, true);
      }
    });
  }

  property(`${target}: combine_f32 adds the weighted rows, in some columns or all`, calls, call => {
    const { combine, initial, weights, padded, cut } = linear(kernels, 8, call);
    const out = initial.map((value, i) => Math.fround(Math.sin(i) - value));
    const y = combine(out, initial);
    const [terms, before, after] = [out, initial, y].map(cut);
    for (let i = 0; i < terms.length; i++) {
      const term = weights[call.rows - 1 - Math.floor(i / call.outputs)] * terms[i];
      if (target === 'simd') assert.equal(after[i], round(before[i] + round(term)));
      // At most one rounding of the product, and one of the sum.
      const bound = 2 ** -24 * (2 * Math.abs(term) + Math.abs(before[i] + term)) + 2 ** -148;
      assertWithin(after[i], before[i] + term, bound, `y[${i}]`);
    }
    y.forEach((value, i) => {
      if (i % padded >= call.outputs) assert.ok(Object.is(value, initial[i]), 'past the last column');
    });
    const middle = call.outputs >> 1;
    assertSame(combine(out, combine(out, initial, 0, middle), middle), y, 'in two parts', true);
  });

  property(
    `${target}: multiply_f32 multiplies element by element`,
    calls,
    ({ rows, inputs, seed, spread, gap, last }) => {
      const length = rows * inputs;
      const draw = numbers(seed, spread);
      const [factors, values] = [draw(length), draw(length)];
      const at = lay({ factors: length, out: length }, gap, last);
      at.factors.floats.set(factors);
      const out = run(() => kernels.multiply_f32(at.factors.ptr, at.out.ptr, length), at.out, values);
      assertSame(
        out,
        values.map((value, i) => value * factors[i]),
        'out',
        true,
      );
    },
  );

  property(`${target}: both sets of kernels give the same bits, in tiles of four, five and six rows`, calls, call => {
    const results = widths.flatMap(width => {
      const { product, cut } = linear(kernels, width, call);
      return [4, 5, 6].map(tileRows => cut(product({ tileRows })));
    });
    for (const out of results) assertSame(out, results[0], 'sums', true);
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
