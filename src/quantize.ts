/**
 * The arithmetic of experts in int8: what their weights and the rows given to them become, and what comes of both. Every
 * kernel of this format gives exactly these integers, and these roundings to float32.
 *
 *   weights  w ≈ scale · v        v in -127 … 127, one scale for each output
 *   rows     x ≈ scale · (q - z)  q in 0 … 127, a scale and a zero point z for each row, from its extremes and 0: so 0 is
 *                                 a code, and a row without negative numbers, as relu gives, has all codes for its own
 *   product  Σ w x ≈ scale · scale · Σ v (q - z), the sum in integers: exact, in any order, on every machine
 *
 * Rounding to an integer goes to the nearest, ties to even. No scale is below 2^-126: a row of zeros has codes z = 0.
 * Codes stop at 127 so that two products of bytes fit into 16 bits, which is what vector instructions add them in.
 */
import type { Floats } from './types.js';

export interface QuantizedRow {
  readonly scale: number;
  /** z: 0 … 127. */
  readonly zero: number;
  /** q: 0 … 127. */
  readonly codes: Uint8Array;
}

export interface QuantizedWeights {
  readonly scale: number;
  /** v: -127 … 127. */
  readonly values: Int8Array;
}

const { fround } = Math;
const SMALLEST_SCALE = 2 ** -126;

/** The most inputs whose sum Σ v (q - z) surely fits into int32. */
export const MAX_INPUTS = Math.floor((2 ** 31 - 1) / 127 ** 2);

/** The weights of one output. Scale and values are those of the nearest float32s. */
export function quantizeWeights(w: Floats): QuantizedWeights {
  let largest = 0;
  for (let l = 0; l < w.length; l++) largest = Math.max(largest, Math.abs(fround(w[l])));
  const scale = Math.max(fround(largest / 127), SMALLEST_SCALE);
  const values = new Int8Array(w.length);
  for (let l = 0; l < w.length; l++) values[l] = clamp(roundToEven(fround(w[l]) / scale), -127, 127);
  return { scale, values };
}

/** One row of finite numbers, taken in float32: each operation is rounded to it. */
export function quantizeRow(x: Floats): QuantizedRow {
  let [low, high] = [0, 0];
  for (let l = 0; l < x.length; l++) {
    low = Math.min(low, fround(x[l]));
    high = Math.max(high, fround(x[l]));
  }
  const scale = Math.max(fround(fround(high / 127) - fround(low / 127)), SMALLEST_SCALE);
  const perUnit = fround(1 / scale);
  const steps = (value: number) => roundToEven(fround(value * perUnit));
  const zero = steps(-low);
  const codes = new Uint8Array(x.length);
  for (let l = 0; l < x.length; l++) codes[l] = clamp(steps(fround(x[l])) + zero, 0, 127);
  return { scale, zero, codes };
}

/** One output for one row: the exact sum rounded to float32, times each scale, plus the bias, rounded after each. */
export function quantizedOutput(row: QuantizedRow, weights: QuantizedWeights, bias: number): number {
  let sum = 0;
  for (let l = 0; l < row.codes.length; l++) sum += weights.values[l] * (row.codes[l] - row.zero);
  return fround(fround(fround(fround(sum) * row.scale) * weights.scale) + fround(bias));
}

/** Below 2^51, where float64 has half units: the sum has none, and rounds. */
function roundToEven(value: number): number {
  return value + 1.5 * 2 ** 52 - 1.5 * 2 ** 52;
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(Math.max(value, least), most);
}
