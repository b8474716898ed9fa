/**
 * How far a backend that computes in a format of unit roundoff u may be from the reference, given equal decisions:
 * first-order running bounds from the magnitudes of this very call, carried from stage to stage. Sums may be taken in
 * any order. Source: Higham, Accuracy and Stability of Numerical Algorithms (2nd ed.), section 3.1; a sum of n products is
 * within n·u·Σ|a||b|, and n + 2 covers the bias, the store and the second-order terms.
 */
import { linear } from '../linear.js';
import { gatherRows, largestMagnitude, row, rows, zeros } from '../matrix.js';
import { routers } from '../selection/routers.js';
import type { ActivationName, Config, Floats, Matrix, Trace, Weights } from '../types.js';

/** The unit roundoff of float32. */
export const U32 = 2 ** -24;

/** max |σ′|: relu 1; gelu and gelu_tanh near h = √2 (1.1290, 1.1295); silu near h = 2.4 (1.0998). Gated forms: of their σ. */
export const LIPSCHITZ: Readonly<Record<ActivationName, number>> = {
  relu: 1,
  gelu: 1.13,
  gelu_tanh: 1.13,
  silu: 1.1,
  swiglu: 1.1,
  geglu: 1.13,
};

/** exp, tanh and erf of float32 libraries stay within 4 ulp, twice in an activation or a softmax. */
const ELEMENTARY = 8;

/** An absolute error for each element of each output of a trace, by its name in a layer case. */
export type Bounds = ReadonlyMap<string, Floats>;

/**
 * The bounds for every output of `trace`, the reference's on the decisions that are judged.
 *
 * Shapes  as `outputTensors(trace)`: logits, probs, combine [T, E], y [T, d], load_balancing_loss [1]
 */
export function errorBounds(trace: Trace, x: Matrix, weights: Weights, config: Config, u: number): Bounds {
  const logits = scaled(linear(absolute(x), absolute(weights.router)), (x.cols + 2) * u);
  const probs = probsBound(trace.routing.probs, logits, u);
  const weight = weightBound(trace, logits, probs, config, u);
  return new Map([
    ['logits', logits.data],
    ['probs', probs.data],
    ['combine', weight.data],
    ['y', yBound(trace, expertBound(trace, x, weights, config, u), weight, u).data],
    ['load_balancing_loss', Float64Array.of(lossBound(trace, probs, u))],
  ]);
}

/** p = e^z / Σe^z: errors of z up to δ move p by a factor within e^±2δ. */
function probsBound(probs: Matrix, logits: Matrix, u: number): Matrix {
  const bound = zeros(probs.rows, probs.cols);
  for (let t = 0; t < probs.rows; t++) {
    const delta = largestMagnitude(row(logits, t));
    const relative = Math.expm1(2 * delta) + (probs.cols + ELEMENTARY) * u;
    row(bound, t).set(row(probs, t).map(p => p * relative + 2 ** -126));
  }
  return bound;
}

/** The combine weight is p, sigmoid(z), whose slope is at most 1/4, or 1. [T, E], 0 where not kept. */
function weightBound(trace: Trace, logits: Matrix, probs: Matrix, config: Config, u: number): Matrix {
  const { selection, expertOffsets, tokenIndex, combineWeight } = trace.plan;
  const bound = zeros(selection.numTokens, selection.numExperts);
  for (let e = 0; e < selection.numExperts; e++) {
    for (let i = expertOffsets[e]; i < expertOffsets[e + 1]; i++) {
      const index = tokenIndex[i] * bound.cols + e;
      const { weight } = routers[config.router];
      if (weight === 'probs') bound.data[index] = probs.data[index] + combineWeight[i] * u;
      if (weight === 'sigmoid') bound.data[index] = logits.data[index] / 4 + ELEMENTARY * u;
    }
  }
  return bound;
}

/** Of `experts.out`: [A, d]. */
function expertBound({ plan, experts }: Trace, x: Matrix, weights: Weights, config: Config, u: number): Matrix {
  const bound = zeros(experts.out.rows, experts.out.cols);
  const numSkip = plan.selection.numExperts - weights.up.length;
  weights.up.forEach((up, e) => {
    const [first, last] = [plan.expertOffsets[e + numSkip], plan.expertOffsets[e + numSkip + 1]];
    const given = absolute(gatherRows(x, plan.tokenIndex.subarray(first, last)));
    const magnitudeOf = (w: Matrix, biases: Matrix | undefined) =>
      linear(given, absolute(w), biases && absolute(biases).data.subarray(e * w.rows, (e + 1) * w.rows));
    const upMagnitude = magnitudeOf(up, weights.upBias);
    const gateMagnitude = weights.gate && magnitudeOf(weights.gate[e], weights.gateBias);
    const hidden = hiddenBound(upMagnitude, gateMagnitude, LIPSCHITZ[config.activation], (x.cols + 2) * u, u);
    const down = absolute(weights.down[e]);
    const carried = linear(hidden, down);
    const bias = weights.downBias && absolute(weights.downBias).data.subarray(e * down.rows, (e + 1) * down.rows);
    const rounding = scaled(linear(absolute(rows(experts.hidden, first, last)), down, bias), (down.cols + 2) * u);
    bound.data.set(
      carried.data.map((c, i) => c + rounding.data[i]),
      first * bound.cols,
    );
  });
  return bound;
}

/** Of σ(h), or of σ(g) ⊙ h by the product rule, where h and g are off by `relative` of their magnitudes; |σ(h)| ≤ |h|. */
function hiddenBound(up: Matrix, gate: Matrix | undefined, lipschitz: number, relative: number, u: number): Matrix {
  const activated = lipschitz * relative + ELEMENTARY * u;
  const factor = gate ? (1 + activated) * (1 + relative) - 1 + u : activated;
  return { ...up, data: up.data.map((h, i) => factor * h * (gate ? gate.data[i] : 1)) };
}

/** Of y = Σ w·o: each term's own error by the product rule, and that of their sum. [T, d] */
function yBound({ plan, experts, y }: Trace, out: Matrix, weight: Matrix, u: number): Matrix {
  const bound = zeros(y.rows, y.cols);
  const { selection, expertOffsets, tokenIndex, combineWeight } = plan;
  for (let e = 0; e < selection.numExperts; e++) {
    for (let i = expertOffsets[e]; i < expertOffsets[e + 1]; i++) {
      const [into, o, deltaO] = [row(bound, tokenIndex[i]), row(experts.out, i), row(out, i)];
      const [w, deltaW] = [combineWeight[i], weight.data[tokenIndex[i] * weight.cols + e]];
      const sum = (selection.numExperts + 2) * u;
      for (let c = 0; c < into.length; c++) {
        into[c] += (w + deltaW) * deltaO[c] + (deltaW + sum * w) * Math.abs(o[c]);
      }
    }
  }
  return bound;
}

/** l_aux = E Σ_e mean(p_e) f_e with exact f_e: at most E times the largest error of a mean probability. */
function lossBound({ loadBalancingLoss }: Trace, probs: Matrix, u: number): number {
  return probs.cols * largestMagnitude(probs.data) + (probs.rows + probs.cols + 2) * u * loadBalancingLoss;
}

/** |a|, each at least 2^-60, which covers underflow. */
function absolute(a: Matrix): Matrix {
  return { ...a, data: a.data.map((value: number) => Math.max(Math.abs(value), 2 ** -60)) };
}

function scaled(a: Matrix, factor: number): Matrix {
  return { ...a, data: a.data.map((value: number) => value * factor) };
}
