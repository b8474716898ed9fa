/** The forward of the experts and their combination with running error bounds. */
import { planOf } from '../../dispatch.js';
import { gatherRows, row, zeros } from '../../matrix.js';
import { numColumns, routers } from '../../selection/routers.js';
import { selectionOf } from '../../selection/selection.js';
import type { Config, DispatchPlan, Matrix, Routing, Weights } from '../../types.js';
import { type Compared, IN } from '../judge/choices.js';
import { type Approximate, exactly, factorOf, given, linearApprox, productApprox, stored } from './approximate.js';
import { activationApprox, sigmoidApprox } from './functions.js';
import { floorOf, flushed, type Rounding, storing } from './rounding.js';

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

/** The combine weights that follow from what the router said: p, sigmoid(z) or 1, where kept. [T, E] */
export function weightsApprox(
  kept: Uint8Array,
  { logits, probs }: Compared,
  config: Config,
  router: Rounding,
  experts: Rounding,
): Approximate {
  const numExperts = numColumns(config);
  const { weight } = routers[config.router];
  const all =
    weight === 'probs'
      ? probs
      : weight === 'sigmoid'
        ? sigmoidApprox(logits, router)
        : exactly(onesLike(kept, numExperts));
  const value = zeros(kept.length / Math.max(1, numExperts), numExperts);
  const error = new Float64Array(kept.length);
  for (let i = 0; i < kept.length; i++) {
    if (kept[i] !== IN) continue;
    value.data[i] = all.value.data[i];
    error[i] = all.error[i] + (weight === 'one' ? 0 : storing(experts.store, Math.abs(value.data[i]) + all.error[i]));
  }
  return { value, error };
}

function onesLike(kept: Uint8Array, cols: number): Matrix {
  return { rows: kept.length / cols, cols, data: new Float64Array(kept.length).fill(1) };
}

/**
 * y = Σ w·o: each term's own error by the product rule, and that of a sum of as many terms as the token has experts, in
 * any order, taken in `store`.
 *
 * Shapes  out [A, d], weights [T, E], plan with A rows -> [T, d]; rows whose pair is not in `kept` [T, E] are left out
 */
export function combineApprox(
  out: Approximate,
  weights: Approximate,
  plan: DispatchPlan,
  kept: Uint8Array,
  rounding: Rounding,
): Approximate {
  const cols = out.value.cols;
  const y = exactly(zeros(plan.selection.numTokens, cols));
  rowsOfTokens(plan).forEach((rows, t) => {
    const { value, error } = combineTokenApprox(out, weights, rows, kept, rounding);
    y.value.data.set(value.data, t * cols);
    y.error.set(error, t * cols);
  });
  return y;
}

/** Where a row is in the plan, and in [T, E]. */
export interface TokenRow {
  readonly index: number;
  readonly pair: number;
}

/** The rows of each token, in order of expert. */
export function rowsOfTokens({ selection, expertOffsets, tokenIndex }: DispatchPlan): TokenRow[][] {
  const { numTokens, numExperts } = selection;
  const rows = Array.from({ length: numTokens }, (): TokenRow[] => []);
  for (let e = 0; e < numExperts; e++) {
    for (let index = expertOffsets[e]; index < expertOffsets[e + 1]; index++) {
      const t = tokenIndex[index];
      rows[t].push({ index, pair: t * numExperts + e });
    }
  }
  return rows;
}

/** One token's y, of its rows that are in `kept`: [1, d]. */
export function combineTokenApprox(
  out: Approximate,
  weights: Approximate,
  rows: readonly TokenRow[],
  kept: Uint8Array,
  rounding: Rounding,
): Approximate {
  const cols = out.value.cols;
  const y = zeros(1, cols);
  const error = new Float64Array(cols);
  const size = new Float64Array(cols);
  let numTerms = 0;
  for (const { index, pair } of rows) {
    if (kept[pair] !== IN) continue;
    numTerms++;
    const [w, dw] = [weights.value.data[pair], errorOfWeight(weights, pair, rounding)];
    for (let c = 0; c < cols; c++) {
      const [o, dO] = [out.value.data[index * cols + c], out.error[index * cols + c]];
      y.data[c] += w * o;
      error[c] += Math.abs(w) * dO + dw * (Math.abs(o) + dO);
      size[c] += (Math.abs(w) + dw) * (Math.abs(o) + dO);
    }
  }
  for (let c = 0; c < cols; c++) error[c] += errorOfSum(numTerms, size[c], rounding);
  return { value: y, error };
}

/** Of a combine weight as a factor: its own error, and what is lost of one that is subnormal in `store`. */
export function errorOfWeight({ value, error }: Approximate, pair: number, { store }: Rounding): number {
  return error[pair] + flushed(value.data[pair], store);
}

/** What n weighted rows and their sum lose, each product and each sum taken in `store`; `size`: the sum of the products' magnitudes. */
export function errorOfSum(n: number, size: number, rounding: Rounding): number {
  const { store, u } = rounding;
  const coarser = Math.max(1, store.unitRoundoff / u);
  return rounding.sum(n) * coarser * size + n * floorOf(store) + storing(store, size);
}
