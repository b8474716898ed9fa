/** How a part of the layer rounds: what the error bounds are made of. */
import type { Floats } from '../../types.js';
import { type Arithmetic, type Elementary, type FloatFormat, formats } from './arithmetic.js';

export interface Rounding {
  /** The unit roundoff of sums. */
  readonly u: number;
  readonly operands: FloatFormat | 'int8';
  readonly store: FloatFormat;
  /** What sums and elementary functions are computed in: float32, or float64. */
  readonly compute: FloatFormat;
  /** What elementary functions promise, in ulp of `compute`. */
  readonly elementary: Elementary;
  /** A sum of n products is within `sum(n)` of the sum of their magnitudes. */
  readonly sum: (n: number) => number;
}

/** The reference rounds as well, once for each rounding of the implementation. */
export const REFERENCE_U = 2 ** -53;

/**
 * λ of the probabilistic bound: roundings of mean 0 pile up as λ√n u instead of n u, but for a probability of at most
 * 2n e^(−λ²/2) per sum: 3e-8 for n = 600.
 * Source: N. Higham and T. Mary, A New Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41 (2019), theorem 2.4
 */
const LAMBDA = 7;

/** From as many terms on that bound is the tighter one. */
export const LONG_SUM = LAMBDA ** 2;

export type Certainty = 'always' | 'in all likelihood';

/** Logits, probabilities, loss. */
export function routerRounding(arithmetic: Arithmetic, certainty: Certainty = 'always'): Rounding {
  const { router, elementary } = arithmetic;
  return roundingOf(router.unitRoundoff, router, router, elementary, certainty);
}

/** The experts and their combination. */
export function expertRounding(arithmetic: Arithmetic, certainty: Certainty = 'always'): Rounding {
  const { accumulator, operands, store, elementary } = arithmetic;
  return roundingOf(accumulator, operands, store, elementary, certainty);
}

/**
 * n products and n sums, or n fused ones, in any order: at most n roundings on the way of each product; and two more for
 * a bias and for what is of second order (n·u is far below 1). Source: N. Higham, Accuracy and Stability of Numerical
 * Algorithms (2nd ed.), section 3.1.
 */
function roundingOf(
  accumulator: number,
  operands: Rounding['operands'],
  store: FloatFormat,
  elementary: Elementary,
  certainty: Certainty,
): Rounding {
  const u = accumulator + REFERENCE_U;
  const roundings = certainty === 'always' ? (n: number) => n : (n: number) => Math.min(n, LAMBDA * Math.sqrt(n));
  const compute = store.name === 'f64' ? formats.f64 : formats.f32;
  return { u, operands, store, compute, elementary, sum: n => (roundings(n) + 2) * u };
}

/** What a result near 0 may be off by: hardware flushes what is below the smallest normal number, but not in f16. */
export function floorOf({ name, smallestNormal, unitRoundoff }: FloatFormat): number {
  return name === 'f16' ? unitRoundoff * smallestNormal : smallestNormal;
}

/** What is lost of a factor below the smallest normal number: all of it in hardware that takes such numbers for 0, but not in f16. */
export function flushed(value: number, format: FloatFormat): number {
  const size = Math.abs(value);
  return size < format.smallestNormal ? Math.min(size, floorOf(format)) : 0;
}

/** Storing a value of magnitude at most `size`: absolute error. */
export function storing(format: FloatFormat, size: number): number {
  if (size === 0) return 0;
  return size > format.largest
    ? Number.POSITIVE_INFINITY
    : size * (format.unitRoundoff + REFERENCE_U) + floorOf(format);
}

/** Whether the format holds all of these numbers exactly. */
export function holds(format: FloatFormat, values: Floats): boolean {
  if (format.name === 'f64' || (format.name === 'f32' && values instanceof Float32Array)) return true;
  for (let i = 0; i < values.length; i++) if (!isHeld(format, values[i])) return false;
  return true;
}

/** Whether the format holds a number exactly. */
export function isHeld({ name, unitRoundoff, smallestNormal, largest }: FloatFormat, v: number): boolean {
  if (name === 'f64' || v === 0) return true;
  const splitter = 2 ** 53 * unitRoundoff + 1; // Veltkamp: leaves as many bits as the significand has
  const size = Math.abs(v);
  const c = splitter * v;
  return size >= smallestNormal && size <= largest && c - (c - v) === v;
}
