/** The backward of the layer with running error bounds: each step of `backward` once more, on approximate matrices. */
import { row, zeros } from '../../matrix.js';
import { routers } from '../../selection/routers.js';
import { first, isReal, numRealTokens } from '../../selection/selection.js';
import type { ActivationName, DispatchPlan, Matrix } from '../../types.js';
import { type Compared, intervals } from '../judge/choices.js';
import type { Judge } from '../judge/judge.js';
import { firstsOf } from '../judge/judge-loss.js';
import { type Approximate, factorOf, given, productApprox, stored } from './approximate.js';
import { withoutErrorWhereExact } from './exactness.js';
import type { BusyExpert, ForwardApprox } from './forward-approx.js';
import { slopeApprox } from './functions.js';
import {
  add,
  columnSums,
  dots,
  finished,
  gather,
  magnitudesThrough,
  product,
  put,
  type Sums,
  slice,
  stack,
  sumsOf,
  throughWeights,
  transposed,
} from './products.js';
import { floorOf, flushed, holds, type Rounding } from './rounding.js';

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
    const ofRouter = product(gradLogits, transposed(given(call.weights.router, router)), router);
    add(gradX, all, ofRouter, magnitudesThrough(gradLogits, call.weights.router));
  }
  const numHidden = call.weights.up[0].rows * (call.weights.gate ? 2 : 1);
  const numProducts = mostRowsOfToken(plan) * numHidden + numExperts;
  gradients.set('grad.x', stored(finished(gradX, numExperts * 2 + 1, numProducts, rounding), rounding));
  return gradients;
}

/** How many experts the token with the most of them has. */
function mostRowsOfToken({ tokenIndex, selection }: DispatchPlan): number {
  const counts = new Int32Array(selection.numTokens);
  for (const token of tokenIndex) counts[token]++;
  return counts.reduce((a, b) => Math.max(a, b), 0);
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
    const addThrough = (w: Matrix, grad: Approximate) =>
      add(gradX, tokens, throughWeights(grad, w, rounding), magnitudesThrough(grad, w));
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
    addThrough(weights.up[expert], ofUp);
    if (pre.gate && weights.gate) {
      const ofGate = factorOf(pre.gate, rounding);
      put(gate, expert, product(transposed(ofGate), x, rounding));
      put(gateBias, expert, columnSums(pre.gate, rounding));
      addThrough(weights.gate[expert], ofGate);
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
  const w = weights.up[expert];
  const { operands } = rounding;
  const areHeld = operands !== 'int8' && [x.value.data, w.data, ...(bias ? [bias] : [])].every(v => holds(operands, v));
  // exact sums decide on which side of its kink relu is
  const settled = activation === 'relu' && areHeld ? withoutErrorWhereExact(up, x.value, w, bias) : up;
  const slope = slopeApprox(gate ?? settled, activation, rounding);
  if (!gate) return { up: stored(productApprox(ofHidden, slope, rounding), rounding), gate: undefined };
  const ofActivated = productApprox(ofHidden, up, rounding);
  return {
    up: stored(productApprox(ofHidden, activated, rounding), rounding),
    gate: stored(productApprox(ofActivated, slope, rounding), rounding),
  };
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

/** α E f_e / T more for each real token; where its first choice may be another, f may be one more or fewer. */
function withLoss(
  { value, error }: Approximate,
  probs: Approximate,
  alpha: number,
  tokenMask: Uint8Array | undefined,
  { u, elementary }: Rounding,
): Approximate {
  const { rows, cols } = value;
  const numTokens = numRealTokens(rows, tokenMask);
  const [counted, open] = [new Float64Array(cols), new Float64Array(cols)];
  for (let t = 0; t < rows; t++) {
    if (!isReal(tokenMask, t)) continue;
    const firsts = firstsOf(probs, t);
    counted[first(intervals(probs, t).values)]++;
    if (firsts.length > 1) for (const e of firsts) open[e]++;
  }
  const scale = (alpha * cols) / numTokens ** 2;
  const sum = zeros(rows, cols);
  const sumError = error.slice();
  const roundings = (5 + 4 * elementary.division.ulps) * u; // α, its product with E, with f, the sum, and two divisions by T
  for (let t = 0; t < rows; t++) {
    for (let e = 0; e < cols; e++) {
      const at = t * cols + e;
      const [added, unknown] = isReal(tokenMask, t) ? [scale * counted[e], Math.abs(scale) * open[e]] : [0, 0];
      sum.data[at] = value.data[at] + added;
      const size = Math.abs(value.data[at]) + error[at] + Math.abs(added) + unknown;
      sumError[at] += unknown + roundings * size;
    }
  }
  return { value: sum, error: sumError };
}

/**
 * p ⊙ (g − ⟨p, g⟩), or p ⊙ g − p ⟨p, g⟩, or by the Jacobian: Σ_f p_e (δ_ef − p_f) g_f.
 *
 * Maths   each p_e g_e and p_e p_f g_f is rounded E + 2 times at most: three for its factors, and E − 1 in the Jacobian's sum
 */
function softmaxBackward(grad: Approximate, probs: Approximate, rounding: Rounding): Approximate {
  const { rows, cols } = grad.value;
  const value = zeros(rows, cols);
  const error = new Float64Array(value.data.length);
  const relative = rounding.sum(cols) + 2 * rounding.u;
  const floor = (cols + 2) * floorOf(rounding.compute);
  for (let t = 0; t < rows; t++) {
    let [inner, innerError, size] = [0, 0, 0];
    for (let at = t * cols; at < (t + 1) * cols; at++) {
      const [p, dp, g, dg] = [probs.value.data[at], errorOf(probs, at, rounding), grad.value.data[at], grad.error[at]];
      inner += p * g;
      innerError += Math.abs(p) * dg + dp * (Math.abs(g) + dg);
      size += (Math.abs(p) + dp) * (Math.abs(g) + dg);
    }
    for (let at = t * cols; at < (t + 1) * cols; at++) {
      const [p, dp, g, dg] = [probs.value.data[at], errorOf(probs, at, rounding), grad.value.data[at], grad.error[at]];
      value.data[at] = p * (g - inner);
      const reach = Math.abs(g) + dg + size;
      error[at] = Math.abs(p) * (dg + innerError) + dp * reach + relative * (Math.abs(p) + dp) * reach + floor;
    }
  }
  return { value, error };
}

/** Of a factor: its own, and what hardware loses that takes a subnormal one for 0. */
function errorOf({ value, error }: Approximate, at: number, { compute }: Rounding): number {
  return error[at] + flushed(value.data[at], compute);
}

/** g w (1 − w). */
function sigmoidBackward(grad: Approximate, weights: Approximate, rounding: Rounding): Approximate {
  const floor = 3 * floorOf(rounding.compute);
  const value = zeros(grad.value.rows, grad.value.cols);
  const error = new Float64Array(value.data.length);
  for (let at = 0; at < error.length; at++) {
    const [g, dg, w, dw] = [
      grad.value.data[at],
      grad.error[at],
      weights.value.data[at],
      errorOf(weights, at, rounding),
    ];
    value.data[at] = g * w * (1 - w);
    // w, 1 − w ≤ 1
    error[at] = dg * Math.min(1, w + dw) + (Math.abs(g) + dg) * (2 * dw + 4 * rounding.u * (w + dw)) + floor;
  }
  return { value, error };
}

/** w_te · row i, for the pair of each row. */
function weightRows(rowsOfY: Approximate, weights: Approximate, plan: DispatchPlan, rounding: Rounding): Approximate {
  const { u, compute } = rounding;
  const cols = rowsOfY.value.cols;
  const value = zeros(rowsOfY.value.rows, cols);
  const error = new Float64Array(value.data.length);
  for (let e = 0; e < plan.selection.numExperts; e++) {
    for (let i = plan.expertOffsets[e]; i < plan.expertOffsets[e + 1]; i++) {
      const at = plan.tokenIndex[i] * plan.selection.numExperts + e;
      const [w, dw] = [weights.value.data[at], errorOf(weights, at, rounding)];
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
