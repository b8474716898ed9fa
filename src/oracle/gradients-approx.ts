/** The backward of the layer with running error bounds: each step of `backward` once more, on approximate matrices. */
import { activations } from '../activations.js';
import { linear } from '../linear.js';
import { gatherRows, row, zeros } from '../matrix.js';
import { routers } from '../selection/routers.js';
import { isReal, numRealTokens } from '../selection/selection.js';
import type { ActivationName, DispatchPlan, Matrix } from '../types.js';
import { type Approximate, factorOf, given, linearApprox, productApprox, stored } from './approximate.js';
import type { Compared } from './choices.js';
import { withoutErrorWhereExact } from './exactness.js';
import type { BusyExpert, ForwardApprox } from './forward-approx.js';
import type { Judge } from './judge.js';
import { firstsOf } from './judge-loss.js';
import { floorOf, REFERENCE_U, type Rounding } from './rounding.js';

export type GradientsApprox = ReadonlyMap<string, Approximate>;

/**
 * Every gradient by its name in a layer case, of the flattened shape [rows, cols] that its tensor has in memory.
 *
 * `probs` may have been made anew by a backward, and carry that error; `weights` [T, E] are the combine weights.
 */
export function gradientsApprox(
  judge: Judge,
  compared: Compared,
  plan: DispatchPlan,
  forward: ForwardApprox,
  weights: Approximate,
): GradientsApprox {
  const { call, experts: rounding, router } = judge;
  const { x, config } = call;
  const gradY = given(call.gradY!, rounding);
  const numExperts = plan.selection.numExperts;

  const rowsOfY = gather(gradY, plan.tokenIndex);
  const gradOut = stored(weightRows(rowsOfY, weights, plan, rounding), rounding);
  const gradX = sumsOf(x.rows, x.cols);
  const gradients = expertGradients(judge, plan, forward, gradOut, gradX);

  if (config.router !== 'hash') {
    const gradWeight = dots(rowsOfY, forward.out, rounding);
    const gradLogits = logitGradients(judge, compared, plan, gradWeight, weights);
    const ofX = given(x, router);
    gradients.set('grad.router.weight', product(transposed(gradLogits), transposed(ofX), router));
    const all = Int32Array.from({ length: x.rows }, (_, t) => t);
    add(gradX, all, product(gradLogits, transposed(given(call.weights.router, router)), router));
  }
  gradients.set('grad.x', stored(finished(gradX, numExperts * 2 + 1, rounding), rounding));
  return gradients;
}

/** For x into `gradX`, and for the weights of every expert. */
function expertGradients(
  { call, experts: rounding }: Judge,
  plan: DispatchPlan,
  forward: ForwardApprox,
  gradOut: Approximate,
  gradX: Sums,
): Map<string, Approximate> {
  const { weights, config } = call;
  const { rows: dFf, cols: dModel } = weights.up[0];
  const numExperts = weights.up.length;
  const up = stack(numExperts, dFf * dModel);
  const gate = stack(numExperts, dFf * dModel);
  const down = stack(numExperts, dModel * dFf);
  const [upBias, gateBias, downBias] = [stack(numExperts, dFf), stack(numExperts, dFf), stack(numExperts, dModel)];
  for (const busy of forward.busy) {
    const { expert, first, last, hidden } = busy;
    const tokens = plan.tokenIndex.subarray(first, last);
    const ofOut = slice(gradOut, first, last);
    const factor = factorOf(ofOut, rounding);
    put(down, expert, product(transposed(factor), transposed(factorOf(hidden, rounding)), rounding));
    put(downBias, expert, columnSums(ofOut, rounding));
    const ofHidden = stored(throughWeights(factor, weights.down[expert], rounding), rounding);
    const pre = preActivationGradients(ofHidden, busy, call.weights, config.activation, rounding);
    const x = transposed(busy.given);
    const ofUp = factorOf(pre.up, rounding);
    put(up, expert, product(transposed(ofUp), x, rounding));
    put(upBias, expert, columnSums(pre.up, rounding));
    add(gradX, tokens, throughWeights(ofUp, weights.up[expert], rounding));
    if (pre.gate && weights.gate) {
      const ofGate = factorOf(pre.gate, rounding);
      put(gate, expert, product(transposed(ofGate), x, rounding));
      put(gateBias, expert, columnSums(pre.gate, rounding));
      add(gradX, tokens, throughWeights(ofGate, weights.gate[expert], rounding));
    }
  }
  return new Map(
    Object.entries({
      'grad.experts.up_proj': up,
      'grad.experts.up_proj_bias': upBias,
      'grad.experts.gate_proj': gate,
      'grad.experts.gate_proj_bias': gateBias,
      'grad.experts.down_proj': down,
      'grad.experts.down_proj_bias': downBias,
    }).map(([name, gradient]) => [name, stored(gradient, rounding)]),
  );
}

function preActivationGradients(
  ofHidden: Approximate,
  { up, gate, given: x, expert, activated }: BusyExpert,
  weights: Judge['call']['weights'],
  activation: ActivationName,
  rounding: Rounding,
): { up: Approximate; gate: Approximate | undefined } {
  const bias = weights.upBias && row(weights.upBias, expert);
  // exact sums decide on which side of its kink relu is
  const settled = activation === 'relu' ? withoutErrorWhereExact(up, x.value, weights.up[expert], bias) : up;
  const slope = slopeApprox(gate ?? settled, activation, rounding);
  if (!gate) return { up: stored(productApprox(ofHidden, slope, rounding), rounding), gate: undefined };
  const ofActivated = productApprox(ofHidden, up, rounding);
  return {
    up: stored(productApprox(ofHidden, activated, rounding), rounding),
    gate: stored(productApprox(ofActivated, slope, rounding), rounding),
  };
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
    if (activation === 'relu') error[i] = Math.abs(v) <= e && e > 0 ? 1 : 0;
    else {
      const size = Math.abs(v) + e;
      const cubic = activation === 'gelu_tanh' ? 1 + 0.134 * size * size : 1;
      error[i] = Math.min(2.3, CURVATURE[activation] * e + ulps * u * (1 + size * cubic));
    }
  }
  return { value, error };
}

/** The gradients for the logits: through the combine weights, and through the loss. [T, E] */
function logitGradients(
  { call, router, experts }: Judge,
  { probs }: Compared,
  plan: DispatchPlan,
  gradWeight: { value: Float64Array; error: Float64Array },
  weights: Approximate,
): Approximate {
  const { config, inputs, x } = call;
  const numExperts = plan.selection.numExperts;
  const { weight, balanced } = routers[config.router];
  const value = zeros(x.rows, numExperts);
  const error = new Float64Array(value.data.length);
  for (let e = 0; e < numExperts; e++) {
    for (let i = plan.expertOffsets[e]; i < plan.expertOffsets[e + 1]; i++) {
      const at = plan.tokenIndex[i] * numExperts + e;
      value.data[at] = gradWeight.value[i];
      error[at] = gradWeight.error[i];
    }
  }
  const ofWeights = stored({ value, error }, experts);
  if (weight === 'sigmoid') return sigmoidBackward(ofWeights, weights, router);
  const alpha = balanced ? (config.auxLossCoef ?? 0) : 0;
  const ofProbs = alpha === 0 ? ofWeights : withLoss(ofWeights, probs, alpha, inputs.tokenMask, router);
  return softmaxBackward(ofProbs, probs, router);
}

/** α E f_e / T more for each real token; where a first choice may be another, f is not known to that token. */
function withLoss(
  { value, error }: Approximate,
  probs: Approximate,
  alpha: number,
  tokenMask: Uint8Array | undefined,
  { u }: Rounding,
): Approximate {
  const { rows, cols } = value;
  const numTokens = numRealTokens(rows, tokenMask);
  const [sure, open] = [new Float64Array(cols), new Float64Array(cols)];
  for (let t = 0; t < rows; t++) {
    if (!isReal(tokenMask, t)) continue;
    const firsts = firstsOf(probs, t);
    sure[firsts[0]]++;
    if (firsts.length > 1) for (const e of firsts) open[e]++;
  }
  const scale = (alpha * cols) / numTokens ** 2;
  const sum = zeros(rows, cols);
  const sumError = error.slice();
  for (let t = 0; t < rows; t++) {
    for (let e = 0; e < cols; e++) {
      const at = t * cols + e;
      const added = isReal(tokenMask, t) ? scale * sure[e] : 0;
      sum.data[at] = value.data[at] + added;
      const size = Math.abs(value.data[at]) + error[at] + Math.abs(added);
      sumError[at] += (isReal(tokenMask, t) ? Math.abs(scale) * open[e] : 0) + 6 * u * size;
    }
  }
  return { value: sum, error: sumError };
}

/** p ⊙ (g − ⟨p, g⟩), or p ⊙ g − p ⟨p, g⟩, or by the Jacobian. */
function softmaxBackward(grad: Approximate, probs: Approximate, rounding: Rounding): Approximate {
  const { rows, cols } = grad.value;
  const value = zeros(rows, cols);
  const error = new Float64Array(value.data.length);
  for (let t = 0; t < rows; t++) {
    let [inner, innerError, size] = [0, 0, 0];
    for (let at = t * cols; at < (t + 1) * cols; at++) {
      const [p, dp, g, dg] = [probs.value.data[at], probs.error[at], grad.value.data[at], grad.error[at]];
      inner += p * g;
      innerError += Math.abs(p) * dg + dp * (Math.abs(g) + dg);
      size += (Math.abs(p) + dp) * (Math.abs(g) + dg);
    }
    innerError += rounding.sum(cols) * size;
    for (let at = t * cols; at < (t + 1) * cols; at++) {
      const [p, dp, g, dg] = [probs.value.data[at], probs.error[at], grad.value.data[at], grad.error[at]];
      value.data[at] = p * (g - inner);
      const reach = Math.abs(g) + dg + size;
      error[at] = Math.abs(p) * (dg + innerError) + dp * reach + 4 * rounding.u * (Math.abs(p) + dp) * reach;
    }
  }
  return { value, error };
}

/** g w (1 − w). */
function sigmoidBackward(grad: Approximate, weights: Approximate, { u }: Rounding): Approximate {
  const value = zeros(grad.value.rows, grad.value.cols);
  const error = new Float64Array(value.data.length);
  for (let at = 0; at < error.length; at++) {
    const [g, dg, w, dw] = [grad.value.data[at], grad.error[at], weights.value.data[at], weights.error[at]];
    value.data[at] = g * w * (1 - w);
    // w, 1 − w ≤ 1
    error[at] = dg * Math.min(1, w + dw) + (Math.abs(g) + dg) * (2 * dw + 4 * u * (w + dw));
  }
  return { value, error };
}

/** w_te · row i, for the pair of each row. */
function weightRows(
  rowsOfY: Approximate,
  weights: Approximate,
  plan: DispatchPlan,
  { u, compute }: Rounding,
): Approximate {
  const cols = rowsOfY.value.cols;
  const value = zeros(rowsOfY.value.rows, cols);
  const error = new Float64Array(value.data.length);
  for (let e = 0; e < plan.selection.numExperts; e++) {
    for (let i = plan.expertOffsets[e]; i < plan.expertOffsets[e + 1]; i++) {
      const at = plan.tokenIndex[i] * plan.selection.numExperts + e;
      const [w, dw] = [weights.value.data[at], weights.error[at]];
      for (let k = i * cols; k < (i + 1) * cols; k++) {
        const [g, dg] = [rowsOfY.value.data[k], rowsOfY.error[k]];
        value.data[k] = w * g;
        const carried = Math.abs(w) * dg + dw * (Math.abs(g) + dg);
        error[k] = carried + u * (Math.abs(w * g) + carried) + floorOf(compute);
      }
    }
  }
  return { value, error };
}

/** ⟨a_i, b_i⟩ for each row. */
function dots(a: Approximate, b: Approximate, rounding: Rounding): { value: Float64Array; error: Float64Array } {
  const { rows, cols } = a.value;
  const [value, error] = [new Float64Array(rows), new Float64Array(rows)];
  for (let i = 0; i < rows; i++) {
    let size = 0;
    for (let k = i * cols; k < (i + 1) * cols; k++) {
      const [p, dp, q, dq] = [a.value.data[k], a.error[k], b.value.data[k], b.error[k]];
      value[i] += p * q;
      error[i] += Math.abs(p) * dq + dp * (Math.abs(q) + dq);
      size += (Math.abs(p) + dp) * (Math.abs(q) + dq);
    }
    error[i] += rounding.sum(cols) * size + floorOf(rounding.compute);
  }
  return { value, error };
}

/** grad W, for weights [out, in]: [n, out] -> [n, in]. */
function throughWeights(grad: Approximate, w: Matrix, rounding: Rounding): Approximate {
  return linearApprox(grad, transpose(w), undefined, rounding);
}

/** a bᵀ, both approximate: |δ| ≤ Σ (δa + s (|a| + δa)) (|b| + δb) + |a| δb. */
function product(a: Approximate, b: Approximate, rounding: Rounding): Approximate {
  const relative = rounding.sum(a.value.cols);
  const sizes = { ...b.value, data: b.error.map((e, i) => Math.abs(b.value.data[i]) + e) };
  const wide = { ...a.value, data: a.error.map((e, i) => e + relative * (Math.abs(a.value.data[i]) + e)) };
  const error = linear(wide, sizes).data as Float64Array;
  if (b.error.some(e => e > 0)) {
    const carried = linear(
      { ...a.value, data: a.value.data.map(Math.abs) as Float64Array },
      { ...b.value, data: b.error },
    );
    for (let i = 0; i < error.length; i++) error[i] += carried.data[i];
  }
  const floor = a.value.cols * floorOf(rounding.compute);
  return { value: linear(a.value, b.value), error: error.map(e => e + floor) };
}

function columnSums({ value, error }: Approximate, rounding: Rounding): Approximate {
  const { rows, cols } = value;
  const sums = zeros(1, cols);
  const errors = new Float64Array(cols);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < cols; j++) {
      const [v, e] = [value.data[i * cols + j], error[i * cols + j]];
      sums.data[j] += v;
      errors[j] += e + rounding.sum(rows) * (Math.abs(v) + e);
    }
  }
  return { value: sums, error: errors };
}

function transpose({ rows, cols, data }: Matrix): Matrix {
  const turned = zeros(cols, rows);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) turned.data[j * rows + i] = data[i * cols + j];
  return turned;
}

function transposed({ value, error }: Approximate): Approximate {
  const errors = transpose({ ...value, data: error });
  return { value: transpose(value), error: errors.data as Float64Array };
}

function gather({ value, error }: Approximate, rowIndex: Int32Array): Approximate {
  const errors = gatherRows({ ...value, data: error }, rowIndex);
  return { value: gatherRows(value, rowIndex), error: errors.data as Float64Array };
}

function slice({ value, error }: Approximate, first: number, last: number): Approximate {
  const [start, end] = [first * value.cols, last * value.cols];
  return {
    value: { rows: last - first, cols: value.cols, data: value.data.subarray(start, end) },
    error: error.subarray(start, end),
  };
}

function stack(rows: number, cols: number): Approximate {
  return { value: zeros(rows, cols), error: new Float64Array(rows * cols) };
}

function put(into: Approximate, index: number, { value, error }: Approximate): void {
  into.value.data.set(value.data, index * into.value.cols);
  into.error.set(error, index * into.value.cols);
}

/** Rows that are being summed, their errors and their magnitudes. */
interface Sums extends Approximate {
  readonly size: Float64Array;
}

function sumsOf(rows: number, cols: number): Sums {
  return { ...stack(rows, cols), size: new Float64Array(rows * cols) };
}

function add(into: Sums, rowIndex: Int32Array, { value, error }: Approximate): void {
  const cols = value.cols;
  rowIndex.forEach((target, i) => {
    for (let j = 0; j < cols; j++) {
      const [to, from] = [target * cols + j, i * cols + j];
      into.value.data[to] += value.data[from];
      into.error[to] += error[from];
      into.size[to] += Math.abs(value.data[from]) + error[from];
    }
  });
}

/** A sum of at most `numTerms` rows, in any order, taken in the format of the experts. */
function finished({ value, error, size }: Sums, numTerms: number, rounding: Rounding): Approximate {
  const coarser = Math.max(1, rounding.store.unitRoundoff / rounding.u);
  return { value, error: error.map((e, i) => e + rounding.sum(numTerms) * coarser * size[i]) };
}
