/**
 * How far a layer with int8 experts (quantize.ts) may be from the reference, given equal decisions: half a step for every
 * number that is rounded to a code, carried through the products, the activation's slope and the second rounding.
 */
import { activations } from '../activations.js';
import { linear } from '../linear.js';
import { gatherRows, largestMagnitude, row, rows, zeros } from '../matrix.js';
import type { Config, Floats, Matrix, Trace, Weights } from '../types.js';
import { errorBounds, LIPSCHITZ, U32 } from './bounds.js';

/** Half a step, and what float32 adds to it: up to 127 steps, rounded a few times. */
const HALF = 0.5 + 2 ** -14;

/** Second-order terms of the roundings to float32. */
const SLACK = 1 + 2 ** -10;

/**
 * The bound for y of `trace`, the reference's on the decisions that are judged: that of float32 and that of the codes.
 *
 * Maths   |Σ w x - Σ (w + a)(x + b)| <= Σ|w| β + Σ|x| α + k α β, where |a| <= α, |b| <= β: half a step of the weights of
 *         that output and of that row
 * Shapes  [T, d]
 */
export function quantizedBound(trace: Trace, x: Matrix, weights: Weights, config: Config): Floats {
  const { plan } = trace;
  const bound = Float64Array.from(errorBounds(trace, x, weights, config, U32).get('y')!);
  const out = expertBound(trace, x, weights, config);
  for (let i = 0; i < out.rows; i++) {
    const into = plan.tokenIndex[i] * out.cols;
    for (let c = 0; c < out.cols; c++) {
      bound[into + c] += SLACK * plan.combineWeight[i] * out.data[i * out.cols + c];
    }
  }
  return bound;
}

/** Of `experts.out` [A, d]: what the codes add. */
function expertBound({ plan, experts }: Trace, x: Matrix, weights: Weights, config: Config): Matrix {
  const bound = zeros(experts.out.rows, experts.out.cols);
  const numSkip = plan.selection.numExperts - weights.up.length;
  weights.up.forEach((_, e) => {
    const [first, last] = [plan.expertOffsets[e + numSkip], plan.expertOffsets[e + numSkip + 1]];
    const given = gatherRows(x, plan.tokenIndex.subarray(first, last));
    const hidden = rows(experts.hidden, first, last);
    const error = hiddenBound(given, e, weights, config);
    const isPositive = config.activation === 'relu';
    const down = productBound(hidden, error, weights.down[e], isPositive);
    bound.data.set(down.data, first * bound.cols);
  });
  return bound;
}

/** Of σ(h), or of σ(g) ⊙ h: |σ(g + δ)(h + ε) - σ(g) h| <= L δ (|h| + ε) + |σ(g)| ε. */
function hiddenBound(given: Matrix, e: number, weights: Weights, config: Config): Matrix {
  const exact = zeros(given.rows, given.cols);
  const lipschitz = LIPSCHITZ[config.activation];
  const up = productBound(given, exact, weights.up[e]);
  if (!weights.gate) return { ...up, data: up.data.map(error => lipschitz * error) };
  const gate = productBound(given, exact, weights.gate[e]);
  const h = linear(given, weights.up[e], weights.upBias && row(weights.upBias, e));
  const g = linear(given, weights.gate[e], weights.gateBias && row(weights.gateBias, e));
  const { apply } = activations[config.activation];
  return {
    ...up,
    data: up.data.map((error, i) => {
      return lipschitz * gate.data[i] * (Math.abs(h.data[i]) + error) + Math.abs(apply(g.data[i])) * error;
    }),
  };
}

/** Of x wᵀ, where x is off by up to `error` before it is rounded to codes; `isPositive`: no number of x is below 0. */
function productBound(x: Matrix, error: Matrix, w: Matrix, isPositive = false): Matrix {
  const halfOfOutput = Float64Array.from({ length: w.rows }, (_, j) => (HALF * largestMagnitude(row(w, j))) / 127);
  const offBy = zeros(x.rows, x.cols); // after the rounding
  const magnitude = new Float64Array(x.rows);
  for (let i = 0; i < x.rows; i++) {
    const [values, errors, into] = [row(x, i), row(error, i), row(offBy, i)];
    let [low, high] = [0, 0];
    for (let l = 0; l < x.cols; l++) {
      high = Math.max(high, values[l] + errors[l]);
      if (!isPositive) low = Math.min(low, values[l] - errors[l]);
    }
    const half = (HALF * (high - low)) / 127 + 2 ** -126;
    for (let l = 0; l < x.cols; l++) {
      into[l] = errors[l] + half;
      magnitude[i] += Math.abs(values[l]) + into[l];
    }
  }
  const carried = linear(offBy, { ...w, data: w.data.map(Math.abs) });
  return {
    ...carried,
    data: carried.data.map((c, n) => c + halfOfOutput[n % w.rows] * magnitude[Math.floor(n / w.rows)]),
  };
}
