/** The load-balancing loss on the implementation's own probabilities, and the training loss on its own y. */
import { compensatedDot } from '../../matrix.js';
import { routers } from '../../selection/routers.js';
import { first, isReal, numRealTokens } from '../../selection/selection.js';
import type { Matrix } from '../../types.js';
import { type Approximate, exactly } from '../bounds/approximate.js';
import { floorOf, type Rounding } from '../bounds/rounding.js';
import type { StageVerdicts } from '../types.js';
import { intervals } from './choices.js';
import { type Judge, judgeFloats, notJudged, usable, worseOf } from './judge.js';
import type { JudgedRouting } from './judge-routing.js';
import { asMatrix } from './observe.js';

export function judgeLoss(judge: Judge, { compared }: JudgedRouting): StageVerdicts {
  const { call, router, arithmetic } = judge;
  const { config, inputs, gradY } = call;
  const own = usable(judge, 'load_balancing_loss');
  const { approximate: balancing, numOpen } = routers[config.router].balanced
    ? loadBalancingApprox(compared.probs, inputs.tokenMask, router, own ? own.data[0] : balancingInLoss(judge))
    : { approximate: exactly(scalar(0)), numOpen: 0 };
  const nowhere = () => ({});
  const judged = judgeFloats(judge, 'loss', 'load_balancing_loss', () => balancing, arithmetic.router, nowhere);
  const onBalancing = { ...judged, numAmbiguous: judged.verdict === 'not judged' ? 0 : numOpen };
  if (!gradY) return onBalancing;
  const y = usable(judge, 'y');
  if (!y) return worseOf(onBalancing, notJudged('loss', 'no y to make the loss of'));
  const added = own ? exactly(asMatrix(own)) : balancing;
  const training = () => trainingApprox(exactly(asMatrix(y)), gradY, added, config.auxLossCoef ?? 0, judge.experts);
  return worseOf(onBalancing, judgeFloats(judge, 'loss', 'loss', training, arithmetic.router, nowhere));
}

/** What an implementation's training loss adds to its Σ(y ⊙ gradY), over α: which first choices were counted. */
function balancingInLoss(judge: Judge): number | undefined {
  const { config, gradY } = judge.call;
  const [y, loss] = [usable(judge, 'y'), usable(judge, 'loss')];
  if (!gradY || !y || !loss || !config.auxLossCoef) return undefined;
  return (loss.data[0] - compensatedDot(asMatrix(y).data, gradY.data)) / config.auxLossCoef;
}

function scalar(value: number): Matrix {
  return { rows: 1, cols: 1, data: Float64Array.of(value) };
}

/**
 * l_aux = E Σ_e mean(p_e) f_e. Each token adds E · mean(p_e) / T for its first choice e; where several may be first, the
 * loss may lie anywhere between the least and the most that they add: the nearest value there to `own` is expected.
 */
export function loadBalancingApprox(
  probs: Approximate,
  tokenMask: Uint8Array | undefined,
  rounding: Rounding,
  own: number | undefined,
): { approximate: Approximate; numOpen: number } {
  const { rows, cols } = probs.value;
  const numTokens = numRealTokens(rows, tokenMask);
  if (numTokens === 0) return { approximate: exactly(scalar(0)), numOpen: 0 };
  const mean = new Float64Array(cols);
  const meanError = new Float64Array(cols);
  for (let t = 0; t < rows; t++) {
    if (!isReal(tokenMask, t)) continue;
    const { values, errors } = intervals(probs, t);
    for (let e = 0; e < cols; e++) {
      mean[e] += values[e] / numTokens;
      meanError[e] += errors[e] / numTokens;
    }
  }
  let [least, most, pinned, error, numOpen] = [0, 0, 0, 0, 0];
  for (let t = 0; t < rows; t++) {
    if (!isReal(tokenMask, t)) continue;
    const firsts = firstsOf(probs, t);
    if (firsts.length > 1) numOpen++;
    let [low, high, highError] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0];
    for (const e of firsts) {
      low = Math.min(low, mean[e]);
      high = Math.max(high, mean[e]);
      highError = Math.max(highError, meanError[e]);
    }
    least += low;
    most += high;
    pinned += mean[first(intervals(probs, t).values)];
    error += highError;
  }
  const scale = cols / numTokens;
  const expected = Math.min(most, Math.max(least, own === undefined ? pinned : own / scale));
  const rounded =
    rounding.sum(rows + cols + 4 * rounding.elementary.division.ulps) * scale * Math.abs(most) +
    floorOf(rounding.compute);
  return { approximate: { value: scalar(scale * expected), error: Float64Array.of(scale * error + rounded) }, numOpen };
}

/** The experts that may be a token's first choice. */
export function firstsOf(probs: Approximate, token: number): number[] {
  const { values, errors } = intervals(probs, token);
  let highest = Number.NEGATIVE_INFINITY;
  for (let e = 0; e < values.length; e++) highest = Math.max(highest, values[e] - errors[e]);
  const firsts: number[] = [];
  for (let e = 0; e < values.length; e++) if (values[e] + errors[e] >= highest) firsts.push(e);
  return firsts;
}

/** Σ(y ⊙ gradY) + α·l_aux, a sum of T·d + 1 products. */
export function trainingApprox(
  y: Approximate,
  gradY: Matrix,
  balancing: Approximate,
  alpha: number,
  rounding: Rounding,
): Approximate {
  const added = alpha * balancing.value.data[0];
  let [error, size] = [Math.abs(alpha) * balancing.error[0], Math.abs(added)];
  for (let i = 0; i < y.error.length; i++) {
    const g = Math.abs(gradY.data[i]);
    error += g * y.error[i];
    size += g * (Math.abs(y.value.data[i]) + y.error[i]);
  }
  const rounded = (rounding.sum(y.error.length + 1) + rounding.u) * size + floorOf(rounding.compute);
  const value = compensatedDot(y.value.data, gradY.data) + added;
  return { value: scalar(value), error: Float64Array.of(error + rounded) };
}
