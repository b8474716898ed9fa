/** Comparisons that name the place where they fail. */
import type { Matrix } from 'xmoe';

/** 2^-53: what one rounding in float64 may be off by, relative to its result. */
export const U = 2 ** -53;

/** Below this numbers underflow: they lose digits, and 1/n of them is infinite. */
export const TINY = 2 ** -1020;

/** Fails on NaN too. */
export function assertWithin(actual: number, expected: number, allowed: number, what: string): void {
  const error = Math.abs(actual - expected);
  if (error <= allowed || Object.is(actual, expected)) return;
  throw new Error(`${what}: expected ${expected}, got ${actual}: off by ${error}, allowed ${allowed}`);
}

/** Equal numbers one by one, and as many of them; −0 is 0 unless `bits`. */
export function assertSame(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string, bits = false): void {
  if (actual.length !== expected.length) {
    throw new Error(`${what}: expected ${expected.length} values, got ${actual.length}`);
  }
  for (let i = 0; i < actual.length; i++) {
    if (Object.is(actual[i], expected[i]) || (!bits && actual[i] === expected[i])) continue;
    throw new Error(`${what} at ${i}: expected ${expected[i]}, got ${actual[i]}`);
  }
}

/** Every element of a matrix within its own allowance. */
export function assertMatrixWithin(
  actual: Matrix,
  expected: (i: number, j: number) => number,
  allowed: (i: number, j: number) => number,
  what: string,
): void {
  for (let i = 0; i < actual.rows; i++) {
    for (let j = 0; j < actual.cols; j++) {
      assertWithin(actual.data[i * actual.cols + j], expected(i, j), allowed(i, j), `${what} at [${i}, ${j}]`);
    }
  }
}
