/**
 * Running error analysis: a matrix together with how far an honest implementation's may be from it, element by element,
 * carried through the products and functions of a layer. All bounds hold for sums in any order.
 */
import { linear } from '../../linear.js';
import { largestMagnitude, row, zeros } from '../../matrix.js';
import type { Floats, Matrix } from '../../types.js';
import type { FloatFormat } from './arithmetic.js';
import { floorOf, holds, isHeld, type Rounding, storing } from './rounding.js';

export interface Approximate {
  /** The reference's. */
  readonly value: Matrix;
  /** The largest |difference| to it; Infinity, or NaN where that met a 0, where the format may overflow. Of the shape of `value`. */
  readonly error: Float64Array;
}

/** Whether an error says anything: the format cannot overflow there. */
export function isBound(error: number): boolean {
  return error < Number.POSITIVE_INFINITY;
}

/** Whether an honest implementation may give `v` at this index. */
export function admits({ value, error }: Approximate, index: number, v: number): boolean {
  return !isBound(error[index]) || Math.abs(v - value.data[index]) <= error[index];
}

/** Numbers that are known exactly. */
export function exactly(value: Matrix): Approximate {
  return { value, error: new Float64Array(value.data.length) };
}

/** Numbers that are given to the implementation, and which it may have to round. */
export function given(value: Matrix, rounding: Rounding): Approximate {
  return asOperand(exactly(value), rounding);
}

/**
 * Rounded to the format of products, where that is smaller than what they are stored in.
 *
 * int8    symmetric, one scale for each row, 7 bits and a sign at most: half a step is max |row| / 126 for those who take
 *         ±63, which spares 16-bit sums from overflow, and half of it for those who take ±127
 */
export function asOperand({ value, error }: Approximate, { operands, store }: Rounding): Approximate {
  if (operands !== 'int8') {
    // each number by itself: what a row may be off by does not hang on the rows beside it
    const rounded = error.map((e, i) =>
      e === 0 && isHeld(operands, value.data[i]) ? e : e + storing(operands, Math.abs(value.data[i]) + e),
    );
    return { value, error: rounded };
  }
  const rounded = error.slice();
  for (let i = 0; i < value.rows; i++) {
    let largest = 0;
    for (let j = 0; j < value.cols; j++) {
      const at = i * value.cols + j;
      largest = Math.max(largest, Math.abs(value.data[at]) + error[at]);
    }
    const half = largest * INT8_HALF_STEP_X + storing(store, largest);
    for (let j = 0; j < value.cols; j++) rounded[i * value.cols + j] += half;
  }
  return { value, error: rounded };
}

const INT8_HALF_STEP_X = 1 / 126;
const INT8_HALF_STEP_W = 1 / 254;

/** What was stored, as a factor of a product: rounded once more where operands have fewer bits, as those of tf32 and int8. */
export function factorOf(kept: Approximate, rounding: Rounding): Approximate {
  return rounding.operands === rounding.store ? kept : asOperand(kept, rounding);
}

/** Kept in memory in the format of the experts. */
export function stored({ value, error }: Approximate, { store }: Rounding): Approximate {
  return { value, error: error.map((e, i) => e + storing(store, Math.abs(value.data[i]) + e)) };
}

/**
 * x wᵀ + bias, of operands x (`given`, `asOperand`) and weights that are rounded here.
 *
 * Maths   |δy| ≤ Σ (δx + (s + r) (|x| + δx)) (1 + r) |w| + s |b|, s the relative error of a sum of so many products, r that
 *         of rounding w; and what is flushed to 0
 * int8    one scale for each output: δw = max |row| / 254
 * Shapes  x [n, k], w [m, k], bias [m] -> [n, m]
 */
export function linearApprox(x: Approximate, w: Matrix, bias: Floats | undefined, rounding: Rounding): Approximate {
  const { operands, compute, store } = rounding;
  const k = x.value.cols;
  const value = linear(x.value, w, bias);
  const sums = rounding.sum(k);
  const roundsW = operands === 'int8' || !holds(operands, w.data);
  const relativeW = roundsW && operands !== 'int8' ? operands.unitRoundoff : 0;
  const relative = sums + relativeW;
  const wide = zeros(x.value.rows, k);
  for (let i = 0; i < wide.data.length; i++) {
    const e = x.error[i];
    wide.data[i] = e + relative * (Math.abs(x.value.data[i]) + e);
  }
  const biasFormat = operands === 'int8' ? store : operands;
  const roundsBias = bias !== undefined && !holds(biasFormat, bias);
  const ofBias = (size: number) => sums * size + (roundsBias ? storing(biasFormat, size) : 0);
  const errorOfBias = bias && Float64Array.from(bias, b => ofBias(Math.abs(b)));
  const error = linear(wide, magnitudes(w, relativeW), errorOfBias).data as Float64Array;
  if (roundsW) addSteps(error, x, w, operands);
  const floor = (k + 2) * floorOf(compute);
  for (let i = 0; i < error.length; i++) {
    // error / relative is at least the sum of magnitudes that the sum may pass through
    error[i] = error[i] > compute.largest * relative ? Number.POSITIVE_INFINITY : error[i] + floor;
  }
  return { value, error };
}

/** δy[i, j] += δw[j] Σ_k (|x[i, k]| + δx[i, k]), δw the absolute part of rounding w; Infinity where the format does not reach. */
function addSteps(error: Float64Array, x: Approximate, w: Matrix, operands: Rounding['operands']): void {
  const { rows, cols, data } = x.value;
  const sums = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    for (let at = i * cols; at < (i + 1) * cols; at++) sums[i] += Math.abs(data[at]) + x.error[at];
  }
  for (let j = 0; j < w.rows; j++) {
    const largest = largestMagnitude(row(w, j));
    const ofFormat = (format: FloatFormat) => (largest > format.largest ? Number.POSITIVE_INFINITY : floorOf(format));
    const step = operands === 'int8' ? largest * INT8_HALF_STEP_W : ofFormat(operands);
    for (let i = 0; i < rows; i++) error[i * w.rows + j] += sums[i] * step;
  }
}

/** (1 + relative)|w|. */
function magnitudes(w: Matrix, relative: number): Matrix {
  const data = new Float64Array(w.data.length);
  for (let i = 0; i < data.length; i++) data[i] = Math.abs(w.data[i]) * (1 + relative);
  return { rows: w.rows, cols: w.cols, data };
}

/** a ⊙ b, by the product rule. */
export function productApprox(a: Approximate, b: Approximate, { u, compute }: Rounding): Approximate {
  const [x, y] = [a.value.data, b.value.data];
  const data = new Float64Array(x.length);
  const error = new Float64Array(x.length);
  const floor = floorOf(compute);
  for (let i = 0; i < x.length; i++) {
    data[i] = x[i] * y[i];
    const carried = Math.abs(x[i]) * b.error[i] + Math.abs(y[i]) * a.error[i] + a.error[i] * b.error[i];
    error[i] = carried + u * (Math.abs(data[i]) + carried) + floor;
  }
  return { value: { ...a.value, data }, error };
}
