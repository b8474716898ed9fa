/** The functions of a layer on approximate matrices: activations and their slopes, softmax and sigmoid. */
import { activations, sigmoid } from '../../activations.js';
import { zeros } from '../../matrix.js';
import type { ActivationName, Matrix } from '../../types.js';
import { type Approximate, isBound } from './approximate.js';
import { floorOf, REFERENCE_U, type Rounding } from './rounding.js';

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
    if (activation !== 'relu' || !isBound(e) || v + e > 0) error[i] = slope * e + loss * (Math.abs(v) + e) + floor;
  }
  return { value, error };
}

/** max |σ″|, by which an error of h moves σ′: silu ½, gelu and gelu_tanh 2φ(0) = 0.798, all at 0. Relu jumps. */
const CURVATURE: Readonly<Record<ActivationName, number>> = {
  relu: 0,
  gelu: 0.8,
  gelu_tanh: 0.81,
  silu: 0.51,
  swiglu: 0.51,
  geglu: 0.8,
};

/**
 * σ′(h). Of relu it is 0 or 1, and may be either where h is within its error of 0.
 *
 * Loss    1 − s and 1 − t² cancel, and are multiplied by h, gelu_tanh's by h (1 + 0.134 h²) too
 */
export function slopeApprox(
  h: Approximate,
  activation: ActivationName,
  { elementary, compute }: Rounding,
): Approximate {
  const { derivative } = activations[activation];
  const { exp, tanh, erf, division } = elementary;
  const u = compute.unitRoundoff + REFERENCE_U;
  const ulps =
    2 * Math.max(exp.ulps + exp.slope, tanh.ulps + tanh.absolute, erf.ulps + erf.absolute) + 2 * division.ulps + 6;
  const value = zeros(h.value.rows, h.value.cols);
  const error = new Float64Array(value.data.length);
  for (let i = 0; i < error.length; i++) {
    const [v, e] = [h.value.data[i], h.error[i]];
    value.data[i] = derivative(v);
    if (!isBound(e)) error[i] = e;
    else if (activation === 'relu') error[i] = Math.abs(v) <= e && e > 0 ? 1 : 0;
    else {
      const size = Math.abs(v) + e;
      const cubic = activation === 'gelu_tanh' ? 1 + 0.134 * size * size : 1;
      error[i] = Math.min(2.3, CURVATURE[activation] * e + ulps * u * (1 + size * cubic)) + floorOf(compute);
    }
  }
  return { value, error };
}

/**
 * The softmax of each row, the largest logit subtracted.
 *
 * Maths   a relative error r_f of each e^(z_f − max) is one of at most (r_e + r) / (1 − r) in p_e, r = Σ_f p_f r_f. r_f is
 *         made of the errors of z, of the difference, which is rounded (u |z_f − max|), and of exp; a sum of E terms and
 *         a division add to it. No more than 1, unless a logit may overflow
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
    const most = z.error.subarray(start, start + cols).every(isBound) ? 1 : Number.POSITIVE_INFINITY;
    let average = 0;
    for (let e = 0; e < cols; e++) {
      const distance = max - z.value.data[start + e];
      relative[e] = Math.expm1(z.error[start + e]) + u * (distance + 2 * exp.ulps + 2 * exp.slope * distance);
      average += probs.data[start + e] * relative[e];
    }
    for (let e = 0; e < cols; e++) {
      const r = (relative[e] + average + shared) / (1 - average);
      error[start + e] = average < 1 / 2 ? Math.min(1, probs.data[start + e] * r + floor) : most;
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
