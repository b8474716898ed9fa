/** The running error bounds: no honest evaluation leaves them, in any order and format; and they are near enough to tell. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ActivationName, activations, linear, type Matrix, sigmoid, softmax } from 'xmoe';
import { generic, matrixOf, uniform } from 'xmoe/cases';
import {
  type Approximate,
  type ArithmeticName,
  approximately,
  arithmeticNamed,
  errorBounds,
  formats,
  type libraries,
} from 'xmoe/oracle';
import { activationNames } from 'xmoe/spec';
import { property } from './property.js';

const f32 = Math.fround;

/** To `bits` of significand, ties to even or towards 0, without a limit of the exponent. */
function roundTo(bits: number, truncate = false): (v: number) => number {
  return v => {
    if (v === 0) return 0;
    const scale = 2 ** (bits - 1 - Math.floor(Math.log2(Math.abs(v))));
    const scaled = v * scale;
    const near = Math.abs(scaled) + 2 ** 52 - 2 ** 52; // to an integer, ties to even
    return (Math.sign(v) * (truncate ? Math.floor(Math.abs(scaled)) : near)) / scale;
  };
}

const operand: Readonly<Record<Exclude<ArithmeticName, 'int8'>, (v: number) => number>> = {
  f64: v => v,
  f32,
  tf32: roundTo(11, true),
  f16: roundTo(11),
  bf16: roundTo(8),
};

type Sum = (terms: readonly number[], round: (v: number) => number) => number;

const sums: Readonly<Record<string, Sum>> = {
  forwards: (terms, round) => terms.reduce((sum, t) => round(sum + t), 0),
  backwards: (terms, round) => [...terms].reverse().reduce((sum, t) => round(sum + t), 0),
  'by pairs': (terms, round) => {
    if (terms.length < 2) return terms[0] ?? 0;
    const middle = terms.length >> 1;
    return round(sums['by pairs'](terms.slice(0, middle), round) + sums['by pairs'](terms.slice(middle), round));
  },
  'in four lanes': (terms, round) => {
    const lanes = [0, 1, 2, 3].map(lane =>
      sums.forwards(
        terms.filter((_, i) => i % 4 === lane),
        round,
      ),
    );
    return round(round(lanes[0] + lanes[1]) + round(lanes[2] + lanes[3]));
  },
  'largest first': (terms, round) =>
    sums.forwards(
      [...terms].sort((a, b) => Math.abs(b) - Math.abs(a)),
      round,
    ),
};

interface Product {
  readonly format: Exclude<ArithmeticName, 'int8'>;
  readonly order: string;
  /** A product is not rounded before it is added. */
  readonly fused: boolean;
  /** Sums of tensor cores. */
  readonly truncated: boolean;
  readonly n: number;
  readonly k: number;
  readonly m: number;
  readonly size: number;
  readonly bias: boolean;
  readonly seed: number;
}

const products: fc.Arbitrary<Product> = fc.record({
  format: fc.constantFrom('f64', 'f32', 'tf32', 'f16', 'bf16'),
  order: fc.constantFrom(...Object.keys(sums)),
  fused: fc.boolean(),
  truncated: fc.boolean(),
  n: fc.integer({ min: 1, max: 4 }),
  k: fc.oneof(fc.integer({ min: 1, max: 19 }), fc.integer({ min: 20, max: 200 })),
  m: fc.integer({ min: 1, max: 4 }),
  size: fc.constantFrom(1e-3, 1, 1e3),
  bias: fc.boolean(),
  seed: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
});

function operandsOf({ n, k, m, size, seed, bias }: Product) {
  const value = (tensor: number, i: number, j: number) => size * generic(uniform(seed, tensor, i, j)) ** 3;
  return {
    x: matrixOf(n, k, (i, j) => value(0, i, j)),
    w: matrixOf(m, k, (i, j) => value(1, i, j)),
    bias: bias ? Float64Array.from({ length: m }, (_, j) => value(2, j, 0)) : undefined,
  };
}

/** How near the errors came to their bounds: the largest quotient of each name. */
const nearest = new Map<string, number>();

function assertWithin(actual: number, { value, error }: Approximate, at: number, what: string): void {
  const difference = Math.abs(actual - value.data[at]);
  if (error[at] > 0) nearest.set(what, Math.max(nearest.get(what) ?? 0, difference / error[at]));
  if (!(difference <= error[at])) {
    throw new Error(`${what}: ${actual}, expected ${value.data[at]}: off by ${difference}, bound ${error[at]}`);
  }
}

property(
  'products are within their bounds in every format and order',
  products,
  (product, reach) => {
    const { x, w, bias } = operandsOf(product);
    const { format, order, fused } = product;
    const truncated = product.truncated && format !== 'f64' && format !== 'f32';
    const round = format === 'f64' ? (v: number) => v : truncated ? roundTo(24, true) : f32;
    const into = operand[format];
    const bound = approximately(arithmeticNamed(format)).linear(x, w, bias);
    for (let i = 0; i < x.rows; i++) {
      for (let j = 0; j < w.rows; j++) {
        const terms = Array.from({ length: x.cols }, (_, l) => {
          const exact = into(x.data[i * x.cols + l]) * into(w.data[j * x.cols + l]);
          return fused && order !== 'by pairs' ? exact : round(exact);
        });
        const sum = sums[order](terms, round);
        const total = bias ? round(sum + into(bias[j])) : sum;
        assertWithin(total, bound, i * w.rows + j, `product in ${format}`);
      }
    }
    reach(format);
    reach(order);
  },
  ['f64', 'f32', 'tf32', 'f16', 'bf16', ...Object.keys(sums)],
);

property(
  'int8 with scales is within its bounds: 7 and 8 bits, symmetric or with a zero point',
  products,
  product => {
    const { x, w, bias } = operandsOf(product);
    const bound = approximately(arithmeticNamed('int8')).linear(x, w, bias);
    const rowOf = (a: Matrix, i: number) => Array.from(a.data.subarray(i * a.cols, (i + 1) * a.cols), f32);
    const symmetric = (row: readonly number[], levels: number) => {
      const scale = f32(Math.max(...row.map(Math.abs)) / levels);
      return row.map(v => Math.round(v / scale) * scale);
    };
    const withZero = (row: readonly number[]) => {
      const [low, high] = [Math.min(0, ...row), Math.max(0, ...row)];
      const scale = f32((high - low) / 127);
      const zero = Math.round(-low / scale);
      return row.map(v => (Math.min(127, Math.max(0, Math.round(v / scale) + zero)) - zero) * scale);
    };
    const rows = [(r: number[]) => symmetric(r, 127), (r: number[]) => symmetric(r, 63), withZero];
    for (const quantize of rows) {
      for (let i = 0; i < x.rows; i++) {
        const given = quantize(rowOf(x, i));
        for (let j = 0; j < w.rows; j++) {
          const weights = symmetric(rowOf(w, j), 127);
          const sum = given.reduce((total, v, l) => total + v * weights[l], 0);
          assertWithin(f32(f32(sum) + (bias ? f32(bias[j]) : 0)), bound, i * w.rows + j, 'product in int8');
        }
      }
    }
  },
  [],
  { share: 0.5 },
);

property(
  'a softmax in float32 is within its bounds, on logits of any size',
  fc.record({
    numExperts: fc.integer({ min: 1, max: 40 }),
    size: fc.constantFrom(0.01, 1, 30, 300),
    order: fc.constantFrom(...Object.keys(sums)),
    way: fc.constantFrom('exp', 'exp2', 'log'),
    seed: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
  }),
  ({ numExperts, size, order, way, seed }, reach) => {
    const logits = matrixOf(1, numExperts, (_, e) => f32(size * generic(uniform(seed, e))));
    const bound = approximately(arithmeticNamed('f32')).softmax(logits);
    const z = Array.from(logits.data);
    const max = Math.max(...z);
    const exp = (v: number) => (way === 'exp2' ? f32(2 ** f32(v * f32(Math.LOG2E))) : f32(Math.exp(v)));
    const numerators = z.map(v => exp(f32(v - max)));
    const total = sums[order](numerators, f32);
    const log = f32(Math.log(total));
    z.forEach((v, e) => {
      const p = way === 'log' ? f32(Math.exp(f32(f32(v - max) - log))) : f32(numerators[e] / total);
      assertWithin(p, bound, e, 'softmax in f32');
    });
    reach(way);
  },
  ['exp', 'exp2', 'log'],
);

/** σ in float32, each operation rounded, as libraries write it; and one that saves an operation. */
const inFloat32: Readonly<Record<Exclude<ActivationName, 'swiglu' | 'geglu'>, ((h: number) => number)[]>> = {
  relu: [h => Math.max(h, 0)],
  silu: [
    h => f32(h / f32(1 + f32(Math.exp(-h)))),
    h => f32(h * f32(1 / f32(1 + f32(Math.exp(-h))))),
    h => f32(h * f32(0.5 * f32(1 + f32(Math.tanh(f32(0.5 * h)))))),
  ],
  gelu: [
    h => f32(f32(0.5 * h) * f32(1 + f32(erf(f32(h * f32(Math.SQRT1_2)))))),
    h => f32(h * f32(0.5 * f32(1 + f32(erf(f32(h / f32(Math.SQRT2))))))),
  ],
  gelu_tanh: [
    h => {
      const inner = f32(f32(0.7978846) * f32(h + f32(f32(0.044715) * f32(h * f32(h * h)))));
      return f32(f32(0.5 * h) * f32(1 + f32(Math.tanh(inner))));
    },
    h => {
      const inner = f32(f32(0.79788456) * f32(h * f32(1 + f32(f32(0.044715) * f32(h * h)))));
      return f32(f32(0.5 * h) * f32(1 + f32(Math.tanh(inner))));
    },
  ],
};

/** By its series, far closer than float32. */
function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let [term, sum] = [x, x];
  for (let n = 1; Math.abs(term) > Math.abs(sum) * 2 ** -60; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

test('activations in float32 are within their bounds, tails and all', () => {
  for (const [name, ways] of Object.entries(inFloat32)) {
    const h = matrixOf(1, 20001, (_, i) => f32((i - 10000) / 500 + 1e-4 * uniform(1, i)));
    const bound = approximately(arithmeticNamed('f32')).activation(h, name as ActivationName);
    for (const way of ways) {
      for (const [i, v] of h.data.entries()) assertWithin(way(v), bound, i, `${name} in f32`);
    }
  }
});

test('an error of h reaches σ(h), and nothing of it where relu is flat', () => {
  for (const name of activationNames) {
    for (const size of [2 ** -20, 2 ** -7, 1]) {
      const h = matrixOf(1, 513, (_, i) => (i - 256) / 32);
      const moved = approximately(arithmeticNamed('f64')).activation(h, name, size);
      const slopes = approximately(arithmeticNamed('f64')).slope(h, name, size);
      const { apply, derivative } = activations[name];
      h.data.forEach((v, i) => {
        for (const by of [-size, -size / 4, size]) {
          assertWithin(apply(v + by), moved, i, `${name} moved`);
          assertWithin(derivative(v + by), slopes, i, `${name} slope moved`);
        }
      });
      if (name === 'relu') assert.equal(moved.error[0], 0); // h = −8
    }
  }
});

test('relu has either slope where h is within its error of 0, and one slope elsewhere', () => {
  const h = matrixOf(1, 4, (_, i) => [0.5, 0.05, 0, -0.05][i]);
  const { value, error } = approximately(arithmeticNamed('f32')).slope(h, 'relu', 0.1);
  assert.deepEqual(Array.from(value.data), [1, 1, 0, 0]);
  assert.deepEqual(Array.from(error), [0, 1, 1, 1]);
  const exact = approximately(arithmeticNamed('f32')).slope(h, 'relu', 0);
  assert.deepEqual(Array.from(exact.error), [0, 0, 0, 0]); // σ′(0) = 0 can be told where h is exactly 0
});

test('numbers that a format holds cost nothing, others one rounding', () => {
  const one = (v: number): Matrix => ({ rows: 1, cols: 1, data: Float64Array.of(v) });
  const errorOf = (name: ArithmeticName, v: number) => approximately(arithmeticNamed(name)).given(one(v)).error[0];
  assert.equal(errorOf('bf16', 0.15625), 0); // 5 · 2^-5
  assert.equal(errorOf('bf16', -255), 0);
  assert.ok(errorOf('bf16', 257) >= 1 && errorOf('bf16', 257) < 1.1);
  assert.equal(errorOf('f16', 2047), 0);
  assert.ok(errorOf('f16', 2049) >= 1 && errorOf('f16', 2049) < 1.1);
  assert.equal(errorOf('f16', 65504), 0);
  assert.equal(errorOf('f16', 65536), Number.POSITIVE_INFINITY); // f16 gives Inf, and nobody is to blame
  assert.equal(errorOf('f32', 2 ** 24), 0);
  assert.ok(errorOf('f32', 2 ** 24 + 1) >= 1);
  assert.ok(errorOf('int8', 126) >= 1); // half a step of 126 / 63
});

test('a product that leaves float32 has no bound', () => {
  const one = (v: number): Matrix => ({ rows: 1, cols: 2, data: Float64Array.of(v, -v) });
  const { error } = approximately(arithmeticNamed('f32')).linear(one(1e20), one(1e20));
  assert.equal(error[0], Number.POSITIVE_INFINITY); // ±1e40 cancel in float64 only
  assert.ok(approximately(arithmeticNamed('f32')).linear(one(1e18), one(1e18)).error[0] < 1e31);
});

test('the library counts: WGSL promises less of exp and tanh than C', () => {
  const h = matrixOf(1, 1, () => 1);
  const errorOf = (library: keyof typeof libraries, name: ActivationName) =>
    approximately(arithmeticNamed('f32', { library })).activation(h, name).error[0];
  assert.ok(errorOf('wgsl', 'gelu_tanh') >= 0.5e-5); // tanh within 1e-5
  assert.ok(errorOf('c', 'gelu_tanh') < 1e-6);
  assert.ok(errorOf('wgsl', 'gelu') < 2e-6);
});

test('sums in f16, if they are stated, are far less exact', () => {
  const ones = matrixOf(1, 100, () => 1);
  const errorOf = (accumulator: 'f32' | 'f16') =>
    approximately(arithmeticNamed('f16', { accumulator })).linear(ones, ones).error[0];
  assert.ok(errorOf('f16') / errorOf('f32') > 8000);
});

test('the probabilistic bound is the tighter one from 50 terms on', () => {
  const bounds = (k: number) =>
    (['always', 'in all likelihood'] as const).map(certainty => {
      const ones = matrixOf(1, k, () => 1);
      return approximately(arithmeticNamed('f32'), certainty).linear(ones, ones).error[0];
    });
  const [always, likely] = bounds(49);
  assert.equal(always, likely);
  const [longAlways, longLikely] = bounds(4900);
  assert.ok(longAlways / longLikely > 9.9 && longAlways / longLikely < 10); // √n / 7
});

test('arithmetics that are none are refused', () => {
  assert.throws(() => arithmeticNamed('fp8' as ArithmeticName), /"arithmetic" expected f64 \| f32 \| .*, got "fp8"/);
  assert.throws(
    () => arithmeticNamed('f32', { library: 'cuda' as 'c' }),
    /"options.library" expected c \| wgsl, got "cuda"/,
  );
  assert.throws(
    () => arithmeticNamed('f32', { accumulator: 'f8' as 'f16' }),
    /"options.accumulator" expected f64 \| f32 \| .*, got "f8"/,
  );
});

test('formats are those of IEEE 754 and of their makers', () => {
  for (const { name, unitRoundoff, smallestNormal, largest } of Object.values(formats)) {
    assert.equal(unitRoundoff, { f64: 2 ** -53, f32: 2 ** -24, tf32: 2 ** -11, f16: 2 ** -11, bf16: 2 ** -8 }[name]);
    const isNarrow = name === 'f16';
    assert.equal(smallestNormal, name === 'f64' ? 2 ** -1022 : isNarrow ? 2 ** -14 : 2 ** -126);
    assert.equal(largest, name === 'f64' ? Number.MAX_VALUE : (2 - 2 * unitRoundoff) * 2 ** (isNarrow ? 15 : 127));
  }
});

test('bounds are near enough: errors come to within a hundredth of them', t => {
  // the worst that one rounding can do: 1 + u rounds to 1, k times, in float32
  const k = 64;
  const x = matrixOf(1, k, (_, l) => (l === 0 ? 1 : 2 ** -24));
  const ones = matrixOf(1, k, () => 1);
  const { value, error } = approximately(arithmeticNamed('f32')).linear(x, ones);
  assert.equal(value.data[0], linear(x, ones).data[0]);
  const lost = sums.forwards(Array.from(x.data), f32) - value.data[0];
  assert.ok(Math.abs(lost) / error[0] > 0.9, `${lost} of ${error[0]}`);
  for (const [what, ratio] of nearest) t.diagnostic(`${what}: errors up to ${ratio.toPrecision(2)} of the bound`);
  for (const [what, ratio] of nearest) if (what.includes(' in ')) assert.ok(ratio > 0.01, what);
});

test('sigmoid and softmax of the reference are what they are judged by', () => {
  const z = matrixOf(1, 3, (_, e) => [1, -2, 0.5][e]);
  const approximate = approximately(arithmeticNamed('f32'));
  assert.deepEqual(approximate.softmax(z).value, softmax(z));
  assert.deepEqual(Array.from(approximate.sigmoid(z).value.data), Array.from(z.data, sigmoid));
});

test('the gradient of x may be one running sum over both projections, each rounding of it to the same side', () => {
  const dFf = 600;
  const stacked = (rows: number, cols: number, values: (i: number) => number): Matrix =>
    matrixOf(rows, cols, (i, j) => values(i * cols + j));
  const { apply, derivative } = activations.swiglu;
  const step = 0.52 * 2 ** -23; // above half an ulp of 1: each sum is rounded up
  const up = stacked(dFf, 1, () => step / apply(4));
  const gate = stacked(dFf, 1, f => (f === 0 ? 1 + 2 ** -20 : step) / derivative(4));
  const call = {
    config: { numExperts: 1, router: 'hash', capacityFactor: null, activation: 'swiglu' } as const,
    weights: {
      router: stacked(0, 1, () => 0),
      up: [up],
      upBias: stacked(1, dFf, () => 1),
      gate: [gate],
      gateBias: stacked(1, dFf, () => 4),
      down: [stacked(1, dFf, () => 1)],
    },
    x: stacked(1, 1, () => 0),
    inputs: { hashTable: Int32Array.of(0), tokenIds: Int32Array.of(0) },
    gradY: stacked(1, 1, () => 1),
  };
  const { value, error } = errorBounds(call, Uint8Array.of(1), arithmeticNamed('f32')).get('grad.x')!;
  const products = [...gate.data].map(w => f32(w * derivative(4))).concat([...up.data].map(w => f32(w * apply(4))));
  const running = sums.forwards(products, f32);
  const difference = Math.abs(running - value.data[0]);
  assert.ok(difference <= error[0], `${difference} of ${error[0]}`);
  assert.ok(difference > 0.5 * error[0], 'and the bound is not far above that');
});
