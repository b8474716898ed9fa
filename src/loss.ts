/** The load-balancing loss: beside the path of y. */
import { addScaled, row, zeros } from './matrix.js';
import { first, isReal, numRealTokens } from './selection/selection.js';
import type { Matrix } from './types.js';

/**
 * How unevenly the tokens and the probabilities fall on the experts: 1 at perfect balance, E at full collapse.
 *
 * Rule    L1-L3; XMoE (ACL Findings 2024), after Switch (Fedus et al. 2022)
 * Maths   l_aux = E · Σ_e mean_t(p_te) · mean_t(1[argmax_e p_t = e]), over real tokens, before capacity; 0 if there are none
 * Shapes  probs [T, E]; with a skip expert E counts its column
 * Ties    argmax: the lower expert index
 */
export function loadBalancingLoss(probs: Matrix, tokenMask?: Uint8Array): number {
  const share = top1Share(probs, tokenMask);
  const meanProb = meanOverTokens(probs, tokenMask);
  return probs.cols * share.reduce((sum, f, e) => sum + f * meanProb[e], 0);
}

/** The gradient for probs: E · share_e / T for each real token; the top-1 shares are constants (rule L3). */
export function loadBalancingLossBackward(probs: Matrix, tokenMask?: Uint8Array): Matrix {
  const grad = zeros(probs.rows, probs.cols);
  const share = top1Share(probs, tokenMask);
  const numTokens = numRealTokens(probs.rows, tokenMask);
  for (let t = 0; t < probs.rows; t++) {
    if (isReal(tokenMask, t)) row(grad, t).set(share.map(f => (probs.cols * f) / numTokens));
  }
  return grad;
}

/** mean_t(1[argmax_e p_t = e]): [E]. */
function top1Share(probs: Matrix, tokenMask: Uint8Array | undefined): Float64Array {
  const oneHot = zeros(probs.rows, probs.cols);
  for (let t = 0; t < probs.rows; t++) row(oneHot, t)[first(row(probs, t))] = 1;
  return meanOverTokens(oneHot, tokenMask);
}

/** The mean of each column over the real tokens; 0 if there are none. */
function meanOverTokens(a: Matrix, tokenMask: Uint8Array | undefined): Float64Array {
  const numTokens = numRealTokens(a.rows, tokenMask);
  const sums = new Float64Array(a.cols);
  for (let t = 0; t < a.rows; t++) if (isReal(tokenMask, t)) addScaled(sums, 1, row(a, t));
  return numTokens === 0 ? sums : sums.map(sum => sum / numTokens);
}
