/** The balanced assignment, where an implementation does not say so but its y does. */
import type { Floats } from '../../types.js';
import { type Approximate, isBound } from '../bounds/approximate.js';
import { errorOfSum, errorOfWeight } from '../bounds/combine-approx.js';
import type { ForwardApprox } from '../bounds/forward-approx.js';
import type { Rounding } from '../bounds/rounding.js';

/**
 * The one expert of each token with rows whose weighted row is the token's y, within the bounds; undefined where a token has
 * none or several such: then y tells nothing.
 *
 * Shapes  y [T, d], weights [T, E], forward of every pair that may be -> flags [T, E]
 */
export function assignmentInY(
  y: Floats | Uint8Array,
  { plan, out }: ForwardApprox,
  weights: Approximate,
  rounding: Rounding,
): Uint8Array | undefined {
  const { numTokens, numExperts } = plan.selection;
  const { cols } = out.value;
  const flags = new Uint8Array(numTokens * numExperts);
  const found = new Int32Array(numTokens);
  for (let e = 0; e < numExperts; e++) {
    for (let i = plan.expertOffsets[e]; i < plan.expertOffsets[e + 1]; i++) {
      const t = plan.tokenIndex[i];
      if (!isRow(i, t, t * numExperts + e)) continue;
      flags[t * numExperts + e] = 1;
      found[t]++;
    }
  }
  const isOne = plan.tokenIndex.every(t => found[t] === 1);
  return isOne ? flags : undefined;

  function isRow(i: number, t: number, pair: number): boolean {
    const [w, dw] = [weights.value.data[pair], errorOfWeight(weights, pair, rounding)];
    for (let c = 0; c < cols; c++) {
      const [o, dO] = [out.value.data[i * cols + c], out.error[i * cols + c]];
      const size = (Math.abs(w) + dw) * (Math.abs(o) + dO);
      const carried = Math.abs(w) * dO + dw * (Math.abs(o) + dO);
      const error = carried + errorOfSum(1, size, rounding);
      if (isBound(error) && !(Math.abs(y[t * cols + c] - w * o) <= error)) return false;
    }
    return true;
  }
}
