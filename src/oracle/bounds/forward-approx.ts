/** The forward of the experts with running error bounds. */
import { planOf } from '../../dispatch.js';
import { gatherRows, row, zeros } from '../../matrix.js';
import { numColumns } from '../../selection/routers.js';
import { selectionOf } from '../../selection/selection.js';
import type { Config, DispatchPlan, Matrix, Routing, Weights } from '../../types.js';
import { IN } from '../judge/choices.js';
import { type Approximate, exactly, factorOf, given, linearApprox, productApprox, stored } from './approximate.js';
import { activationApprox } from './functions.js';
import type { Rounding } from './rounding.js';

/** What the experts are given, and what they make of it. */
export interface ForwardApprox {
  readonly plan: DispatchPlan;
  /** [A, d] */
  readonly out: Approximate;
  /** Of each real expert with rows. */
  readonly busy: readonly BusyExpert[];
}

export interface BusyExpert {
  readonly expert: number;
  readonly first: number;
  readonly last: number;
  readonly given: Approximate;
  readonly up: Approximate;
  readonly gate: Approximate | undefined;
  /** σ(up), or σ(gate). */
  readonly activated: Approximate;
  readonly hidden: Approximate;
}

/** The plan in which exactly these pairs [T, E] are selected and kept. */
export function planOfKept(kept: Uint8Array, numTokens: number, routing: Routing, config: Config): DispatchPlan {
  const numExperts = numColumns(config);
  const selection = selectionOf(numTokens, numExperts, undefined, t => {
    const experts: number[] = [];
    for (let e = 0; e < numExperts; e++) if (kept[t * numExperts + e] === IN) experts.push(e);
    return experts;
  });
  return planOf(selection, new Uint8Array(selection.expertIndex.length).fill(1), numTokens, routing, config);
}

/** Each expert's FFN over its rows. Shapes as `runExperts`. */
export function expertsApprox(
  x: Matrix,
  plan: DispatchPlan,
  weights: Weights,
  config: Config,
  rounding: Rounding,
): ForwardApprox {
  const out = exactly(zeros(plan.tokenIndex.length, x.cols));
  const busy: BusyExpert[] = [];
  const numSkip = plan.selection.numExperts - weights.up.length;
  for (let expert = 0; expert < weights.up.length; expert++) {
    const [first, last] = [plan.expertOffsets[expert + numSkip], plan.expertOffsets[expert + numSkip + 1]];
    if (first === last) continue;
    const rowsOfExpert = expertApprox(
      gatherRows(x, plan.tokenIndex.subarray(first, last)),
      expert,
      weights,
      config,
      rounding,
    );
    const { hidden } = rowsOfExpert;
    const bias = weights.downBias && row(weights.downBias, expert);
    const projected = stored(linearApprox(factorOf(hidden, rounding), weights.down[expert], bias, rounding), rounding);
    out.value.data.set(projected.value.data, first * x.cols);
    out.error.set(projected.error, first * x.cols);
    busy.push({ expert, first, last, ...rowsOfExpert });
  }
  return { plan, out, busy };
}

function expertApprox(x: Matrix, expert: number, weights: Weights, config: Config, rounding: Rounding) {
  const operand = given(x, rounding);
  const project = (w: Matrix, biases: Matrix | undefined) =>
    stored(linearApprox(operand, w, biases && row(biases, expert), rounding), rounding);
  const up = project(weights.up[expert], weights.upBias);
  const gate = weights.gate && project(weights.gate[expert], weights.gateBias);
  const activated = stored(activationApprox(gate ?? up, config.activation, rounding), rounding);
  const hidden = gate ? stored(productApprox(activated, up, rounding), rounding) : activated;
  return { given: operand, up, gate, activated, hidden };
}
