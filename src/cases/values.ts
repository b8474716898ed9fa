/** Numbers that follow from a seed and a place alone: a case that shrinks keeps the numbers it does not lose. */
import type { Matrix } from '../types.js';

/** From 0 up to 1, another number for each seed and place. */
export function uniform(seed: number, a: number, b = 0, c = 0, d = 0): number {
  return (mixed(mixed(mixed(mixed(seed, a), b), c), d) >>> 0) / 2 ** 32;
}

/** 32 bits of both. The mixing is the end of MurmurHash3 (A. Appleby). */
function mixed(hash: number, key: number): number {
  let bits = Math.imul(hash ^ (key + 0x9e3779b9), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return bits ^ (bits >>> 16);
}

/** Mean 0 and variance 1, from a uniform number; its products are not exact in float64. */
export function generic(u: number): number {
  return (2 * u - 1) * Math.sqrt(3);
}

/** An integer from `low` to `high`, from a uniform number. */
export function integer(u: number, low: number, high: number): number {
  return low + Math.floor(u * (high - low + 1));
}

/** The matrix of these values. */
export function matrixOf(rows: number, cols: number, value: (i: number, j: number) => number): Matrix {
  const data = new Float64Array(rows * cols);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) data[i * cols + j] = value(i, j);
  return { rows, cols, data };
}

/** 0 … n − 1 in an order that follows from the seed. */
export function shuffled(n: number, seed: number): number[] {
  const keys = Array.from({ length: n }, (_, i) => uniform(seed, i, 1));
  return keys.map((_, i) => i).sort((a, b) => keys[a] - keys[b]);
}
