/** Where arithmetic is exact in every format: there nothing is within rounding of anything, and `<` can be told from `≤`. */
import { row } from '../../matrix.js';
import type { Floats, Matrix } from '../../types.js';
import type { Approximate } from './approximate.js';

/**
 * The same sums x wᵀ + bias, without error where every partial sum is exact in float32, in any order: all products lie on
 * a grid of which 2^24 steps hold the sum of their magnitudes.
 */
export function withoutErrorWhereExact(sums: Approximate, x: Matrix, w: Matrix, bias?: Floats): Approximate {
  const steps = Float64Array.from({ length: w.rows }, (_, j) => gridOf(row(w, j)));
  if (!steps.some(step => step > 0)) return sums;
  const error = sums.error.slice();
  for (let i = 0; i < x.rows; i++) {
    const given = row(x, i);
    const step = gridOf(given);
    if (step === 0) continue;
    for (let j = 0; j < w.rows; j++) {
      if (steps[j] === 0) continue;
      const grid = step * steps[j];
      const offset = bias ? Math.abs(bias[j]) : 0;
      const size = sumOfMagnitudes(given, row(w, j)) + offset;
      if (size <= 2 ** 24 * grid && Number.isInteger(offset / grid)) error[i * w.rows + j] = 0;
    }
  }
  return { value: sums.value, error };
}

/** The largest power of two of which all values are multiples below 2^11, down to 2^-20; 0 if there is none, 1 for zeros. */
function gridOf(values: Floats): number {
  let bits = 0;
  for (let i = 0; i < values.length; i++) {
    const scaled = Math.abs(values[i]) * 2 ** 20;
    if (!Number.isInteger(scaled) || scaled >= 2 ** 31) return 0;
    bits |= scaled;
  }
  return bits === 0 ? 1 : (bits & -bits) / 2 ** 20;
}

function sumOfMagnitudes(a: Floats, b: Floats): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += Math.abs(a[i] * b[i]);
  return sum;
}

/** From here on e^z is 0 in float64 too. */
const VANISHES = -746;

/**
 * The same probabilities, without error where they are 0 or 1/n, n a power of two, in every format: logits without error
 * that are all equal, or so far below that they vanish.
 */
export function withoutErrorWhereLevel(probs: Approximate, logits: Approximate): Approximate {
  const { rows, cols } = logits.value;
  let error = probs.error;
  for (let t = 0; t < rows; t++) {
    const z = Array.from(row(logits.value, t));
    const max = Math.max(...z);
    const numLargest = z.filter(value => value === max).length;
    const isLevel = z.every(value => value === max || value - max < VANISHES);
    const isExact = logits.error.subarray(t * cols, (t + 1) * cols).every(e => e === 0);
    if (!isLevel || !isExact || (numLargest & (numLargest - 1)) !== 0) continue;
    if (error === probs.error) error = probs.error.slice();
    error.fill(0, t * cols, (t + 1) * cols);
  }
  return { value: probs.value, error };
}

/** Whether sums of these are exact in float32 in any order: multiples of 2^-24 that come to at most 1. */
export function sumsAreExact(values: Floats): boolean {
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    if (!Number.isInteger(values[i] * 2 ** 24)) return false;
    sum += Math.abs(values[i]);
  }
  return sum <= 1;
}
