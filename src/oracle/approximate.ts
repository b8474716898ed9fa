/**
 * Running error analysis: a matrix together with how far an honest implementation's may be from it, element by element,
 * carried through the products and functions of a layer. All bounds hold for sums in any order.
 */
import { activations, sigmoid } from '../activations.js';
import { linear } from '../linear.js';
import { largestMagnitude, row, zeros } from '../matrix.js';
import type { ActivationName, Floats, Matrix } from '../types.js';
import { floorOf, holds, REFERENCE_U, type Rounding, storing } from './rounding.js';

export interface Approximate {
  /** The reference's. */
  readonly value: Matrix;
  /** The largest |difference| to it, Infinity where the format may overflow; of the shape of `value`. */
  readonly error: Float64Array;
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
    if (holds(operands, value.data)) return { value, error };
    return { value, error: error.map((e, i) => e + storing(operands, Math.abs(value.data[i]) + e)) };
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
 * Maths   |δy| ≤ Σ (δx + s (|x| + δx)) (|w| + δw) + |x| δw + s |b|, s the relative error of a sum of so many products;
 *         where all of x and w lie on such a grid that every partial sum is exact, that part is 0
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
  const relativeBias = sums + (bias && !holds(biasFormat, bias) ? biasFormat.unitRoundoff : 0);
  const magnitudesOfBias = bias && Float64Array.from(bias, b => Math.abs(b) * relativeBias);
  const error = linear(wide, magnitudes(w, relativeW), magnitudesOfBias).data as Float64Array;
  if (roundsW) addSteps(error, x, w, operands);
  const floor = (k + 2) * floorOf(compute);
  for (let i = 0; i < error.length; i++) {
    // error / relative is at least the sum of magnitudes that the sum may pass through
    error[i] = error[i] > compute.largest * relative ? Number.POSITIVE_INFINITY : error[i] + floor;
  }
  return { value, error };
}

/** δy[i, j] += δw[j] Σ_k (|x[i, k]| + δx[i, k]), δw the absolute part of rounding w. */
function addSteps(error: Float64Array, x: Approximate, w: Matrix, operands: Rounding['operands']): void {
  const { rows, cols, data } = x.value;
  const sums = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    for (let at = i * cols; at < (i + 1) * cols; at++) sums[i] += Math.abs(data[at]) + x.error[at];
  }
  for (let j = 0; j < w.rows; j++) {
    const step = operands === 'int8' ? largestMagnitude(row(w, j)) * INT8_HALF_STEP_W : floorOf(operands);
    for (let i = 0; i < rows; i++) error[i * w.rows + j] += sums[i] * step;
  }
}

/** (1 + relative)|w|. */
function magnitudes(w: Matrix, relative: number): Matrix {
  const data = new Float64Array(w.data.length);
  for (let i = 0; i < data.length; i++) data[i] = Math.abs(w.data[i]) * (1 + relative);
  return { rows: w.rows, cols: w.cols, data };
}

/** What evaluating σ(h) loses, relative to |h|. */
function activationLoss(activation: ActivationName, { elementary, compute }: Rounding): number {
  const { exp, tanh, erf, division } = elementary;
  const u = compute.unitRoundoff + REFERENCE_U;
  switch (activation) {
    case 'relu':
      return 0;
    // h s, s = 1 / (1 + e^(−h)): an error r of e^(−h) makes one of s (1 − s) r, at most r / 4, and h s (1 − s) at most 0.224
    case 'silu':
    case 'swiglu':
      return u * (0.5 * exp.ulps + 0.45 * exp.slope + 2 * division.ulps + 3);
    // ½h (1 + erf v), |v erf′(v)| ≤ 0.484, v = h/√2 rounded twice
    case 'gelu':
    case 'geglu':
      return u * (erf.ulps + erf.absolute / 2 + 4);
    // ½h (1 + tanh v), |v tanh′(v)| ≤ 0.448, v rounded six times, its factor perhaps cut to 0.79788456
    case 'gelu_tanh':
      return u * (tanh.ulps + tanh.absolute / 2 + 6);
  }
}

/**
 * max |σ′|: gelu and gelu_tanh near h = √2 (1.1290, 1.1295); silu near h = 2.4 (1.0998). Gated forms: of their σ.
 */
const LIPSCHITZ: Readonly<Record<ActivationName, number>> = {
  relu: 1,
  gelu: 1.13,
  gelu_tanh: 1.13,
  silu: 1.1,
  swiglu: 1.1,
  geglu: 1.13,
};

/** σ(h). Where relu is 0 for every h within the error, it is 0. */
export function activationApprox(h: Approximate, activation: ActivationName, rounding: Rounding): Approximate {
  const { apply } = activations[activation];
  const [slope, loss] = [LIPSCHITZ[activation], activationLoss(activation, rounding)];
  const floor = activation === 'relu' ? 0 : floorOf(rounding.compute);
  const { rows, cols, data } = h.value;
  const value = zeros(rows, cols);
  const error = new Float64Array(data.length);
  for (let i = 0; i < data.length; i++) {
    const [v, e] = [data[i], h.error[i]];
    value.data[i] = apply(v);
    if (activation !== 'relu' || v + e > 0) error[i] = slope * e + loss * (Math.abs(v) + e) + floor;
  }
  return { value, error };
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

/**
 * The softmax of each row, the largest logit subtracted.
 *
 * Maths   a relative error r_f of each e^(z_f − max) is one of at most (r_e + r) / (1 − r) in p_e, r = Σ_f p_f r_f. r_f is
 *         made of the errors of z, of the difference, which is rounded (u |z_f − max|), and of exp; a sum of E terms and
 *         a division add to it
 * Shapes  z [T, E] -> [T, E]
 */
export function softmaxApprox(z: Approximate, probs: Matrix, rounding: Rounding): Approximate {
  const { rows, cols } = probs;
  const { exp, division } = rounding.elementary;
  const u = rounding.u;
  const error = new Float64Array(rows * cols);
  const shared = rounding.sum(cols) + 2 * u * division.ulps;
  const floor = cols * floorOf(rounding.compute);
  const relative = new Float64Array(cols);
  for (let t = 0; t < rows; t++) {
    const start = t * cols;
    let max = Number.NEGATIVE_INFINITY;
    for (let e = 0; e < cols; e++) max = Math.max(max, z.value.data[start + e]);
    let average = 0;
    for (let e = 0; e < cols; e++) {
      const distance = max - z.value.data[start + e];
      relative[e] = Math.expm1(z.error[start + e]) + u * (distance + 2 * exp.ulps + 2 * exp.slope * distance);
      average += probs.data[start + e] * relative[e];
    }
    for (let e = 0; e < cols; e++) {
      const r = (relative[e] + average + shared) / (1 - average);
      error[start + e] = average < 1 / 2 ? Math.min(1, probs.data[start + e] * r + floor) : 1;
    }
  }
  return { value: probs, error };
}

/** sigmoid(z), whose slope is at most ¼. */
export function sigmoidApprox(z: Approximate, rounding: Rounding): Approximate {
  const { exp, division } = rounding.elementary;
  const value = { ...z.value, data: Float64Array.from(z.value.data, sigmoid) };
  const error = z.error.map((e, i) => {
    const s = value.data[i];
    const loss = (1 - s) * 2 * (exp.ulps + exp.slope * Math.abs(z.value.data[i])) + 2 * division.ulps + 2;
    return e / 4 + rounding.u * s * loss + floorOf(rounding.compute);
  });
  return { value, error };
}
