/** The combination of the experts' rows with running error bounds: its weights, and what sums them. */
import { zeros } from '../../matrix.js';
import { numColumns, routers } from '../../selection/routers.js';
import type { Config, DispatchPlan, Matrix } from '../../types.js';
import { type Compared, IN } from '../judge/choices.js';
import { type Approximate, exactly } from './approximate.js';
import { sigmoidApprox } from './functions.js';
import { floorOf, flushed, type Rounding, storing } from './rounding.js';

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
