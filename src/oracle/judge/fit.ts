/** Whether some weights of the right experts give a token's y. */
import { zeros } from '../../matrix.js';
import type { Matrix } from '../../types.js';
import { exactly } from '../bounds/approximate.js';
import { combineTokenApprox, rowsOfTokens, type TokenRow } from '../bounds/combine-approx.js';
import type { ForwardApprox } from '../bounds/forward-approx.js';
import { IN } from './choices.js';
import type { Judge } from './judge.js';

/**
 * The weights for which Σ w·o is nearest to y, by least squares; undefined where more experts than columns would give any y.
 *
 * Fits     the distance is at most that of the bounds for these very weights: an honest sum is no further away, and the
 *          nearest weights are no further than its own
 */
export function fitWeights(
  token: number,
  y: Matrix,
  forward: ForwardApprox,
  kept: Uint8Array,
  { experts: rounding }: Judge,
): { token: number; fits: boolean; experts: number[]; weights: number[] } | undefined {
  const { plan, out } = forward;
  const { numTokens, numExperts } = plan.selection;
  const cols = y.cols;
  const rows = rowsOfTokens(plan)[token].filter(({ pair }) => kept[pair] === IN);
  if (rows.length >= cols) return undefined;
  const column = ({ index }: TokenRow) => Array.from(out.value.data.subarray(index * cols, (index + 1) * cols));
  const own = y.data.subarray(token * cols, (token + 1) * cols);
  const weights = leastSquares(rows.map(column), Array.from(own));
  const fitted = zeros(numTokens, numExperts);
  rows.forEach(({ pair }, k) => {
    fitted.data[pair] = weights[k];
  });
  const { value, error } = combineTokenApprox(out, exactly(fitted), rows, kept, rounding);
  let [distance, allowed] = [0, 0];
  for (let c = 0; c < cols; c++) {
    distance += (own[c] - value.data[c]) ** 2;
    allowed += error[c] ** 2;
  }
  const experts = rows.map(({ pair }) => pair % numExperts);
  return { token, fits: distance <= allowed, experts, weights };
}

/** The w that makes |Σ w_k a_k − b| least: Gram–Schmidt, twice, so that near-equal columns do no harm. */
function leastSquares(columns: readonly number[][], b: readonly number[]): number[] {
  const n = columns.length;
  const basis: number[][] = [];
  const r = Array.from({ length: n }, () => new Array<number>(n).fill(0));
  columns.forEach((a, k) => {
    const rest = [...a];
    for (let pass = 0; pass < 2; pass++) {
      basis.forEach((q, j) => {
        const part = inner(q, rest);
        r[j][k] += part;
        rest.forEach((_, i) => {
          rest[i] -= part * q[i];
        });
      });
    }
    const length = Math.sqrt(inner(rest, rest));
    r[k][k] = length;
    basis.push(length > 1e-12 * Math.sqrt(inner(a, a)) ? rest.map(v => v / length) : rest.map(() => 0));
  });
  const rest = [...b];
  const coefficients = basis.map(q => {
    const part = inner(q, rest);
    rest.forEach((_, i) => {
      rest[i] -= part * q[i];
    });
    return part;
  });
  const weights = new Array<number>(n).fill(0);
  for (let k = n - 1; k >= 0; k--) {
    const above = weights.reduce((sum, w, j) => (j > k ? sum + r[k][j] * w : sum), 0);
    weights[k] = inner(basis[k], basis[k]) === 0 ? 0 : (coefficients[k] - above) / r[k][k];
  }
  return weights;
}

function inner(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, v, i) => sum + v * b[i], 0);
}
