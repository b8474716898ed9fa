/** The int8 arithmetic's definition: worked rows, and what has to hold of every one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MAX_INPUTS, quantizedOutput, quantizeRow, quantizeWeights } from 'xmoe';
import { assertWithin } from './close.js';
import { numbers } from './kernels-calls.js';
import { property } from './property.js';

test('worked rows: zero points, ties to even, the clamp at the top, rows of zeros', () => {
  // Steps of 1/32: 127 steps from -32 to 95.
  assert.deepEqual(quantizeRow(Float64Array.of(-1, 0, 1 / 32, 95 / 32, 1.5 / 32, 2.5 / 32, -0.5 / 32)), {
    scale: 1 / 32,
    zero: 32,
    codes: Uint8Array.of(0, 32, 33, 127, 34, 34, 32),
  });
  // Without negative numbers all codes are above 0.
  assert.deepEqual(quantizeRow(Float64Array.of(127, 0, 0.5, 1.5)), {
    scale: 1,
    zero: 0,
    codes: Uint8Array.of(127, 0, 0, 2),
  });
  // ±63.5 steps both round to 64: of 128 codes above 0, the last is left out.
  assert.deepEqual(quantizeRow(Float64Array.of(-63.5, 63.5, 62.5)), {
    scale: 1,
    zero: 64,
    codes: Uint8Array.of(0, 127, 126),
  });
  assert.deepEqual(quantizeRow(new Float64Array(2)), { scale: 2 ** -126, zero: 0, codes: new Uint8Array(2) });
  assert.deepEqual(quantizeRow(new Float64Array(0)), { scale: 2 ** -126, zero: 0, codes: new Uint8Array(0) });
});

test('worked weights: symmetric, ties to even, rows of zeros', () => {
  assert.deepEqual(quantizeWeights(Float64Array.of(-254, 3, 5, 127, 0)), {
    scale: 2,
    values: Int8Array.of(-127, 2, 2, 64, 0),
  });
  assert.deepEqual(quantizeWeights(new Float64Array(3)), { scale: 2 ** -126, values: new Int8Array(3) });
});

test('a worked output: 1/32 · 2 · Σ v (q - 32) + 0.5', () => {
  const row = quantizeRow(Float64Array.of(-1, 0, 95 / 32));
  const weights = quantizeWeights(Float64Array.of(-254, 7, 10));
  assert.equal(quantizedOutput(row, weights, 0.5), (2 / 32) * (-127 * -32 + 5 * 95) + 0.5);
});

test('the longest sums stay within int32', () => {
  assert.ok(MAX_INPUTS * 127 * 127 < 2 ** 31 && (MAX_INPUTS + 1) * 127 * 127 >= 2 ** 31);
});

const rows = fc.record({
  length: fc.integer({ min: 1, max: 40 }),
  seed: fc.integer(),
  spread: fc.constantFrom(0, 3),
  isPositive: fc.boolean(),
});

property(
  'every number of a row is within half a step of its code, 0 exactly, and weights too',
  rows,
  ({ length, seed, spread, isPositive }, reach) => {
    const x = numbers(seed, spread)(length).map(value => (isPositive ? Math.abs(value) : value));
    const { scale, zero, codes } = quantizeRow(x);
    const half = scale * (0.5 + 2 ** -15); // half a step, and the rounding of up to 127 steps in float32
    x.forEach((value, l) => {
      assertWithin(scale * (codes[l] - zero), value, half, `x[${l}]`);
      if (value === 0) assert.equal(codes[l], zero);
    });
    if (x.every(value => value >= 0)) reach(zero === 0 ? 'no negative number' : 'a wrong zero point');
    if (zero > 0 && zero < 127) reach('both signs');

    const weights = quantizeWeights(x);
    const halfOfWeights = weights.scale * (0.5 + 2 ** -15);
    x.forEach((value, l) => {
      assertWithin(weights.scale * weights.values[l], value, halfOfWeights, `w[${l}]`);
    });
  },
  ['no negative number', 'both signs'],
);
