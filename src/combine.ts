/** Stage 5, second half: unpermute the experts' rows, weight them, and sum them into their tokens. */
import { addScaled, dot, row, zeros } from './matrix.js';
import type { DispatchPlan, Floats, Matrix } from './types.js';

/**
 * Each token's weighted sum of what its experts said; 0 for a token that lost all of them.
 *
 * Rule    C1-C4; XMoE (ACL Findings 2024)
 * Maths   y[t, :] = Σ over kept (t, e) of w_te · out_te, in order of e; the output bias is inside the weighting
 * Shapes  expertOut [A, d], plan with A rows -> y [T, d]
 */
export function combine(expertOut: Matrix, plan: DispatchPlan): Matrix {
  const y = zeros(plan.selection.numTokens, expertOut.cols);
  plan.tokenIndex.forEach((t, i) => {
    addScaled(row(y, t), plan.combineWeight[i], row(expertOut, i));
  });
  return y;
}

/**
 * The gradients for the experts' rows and for their weights.
 *
 * Rule    G2, G6
 * Maths   ∂out_te = w_te · ∂y_t;  ∂w_te = ⟨∂y_t, out_te⟩
 * Shapes  gradY [T, d] -> out [A, d], weight [A]
 */
export function combineBackward(gradY: Matrix, expertOut: Matrix, plan: DispatchPlan): { out: Matrix; weight: Floats } {
  const gradOut = zeros(expertOut.rows, expertOut.cols);
  const gradWeight = new Float64Array(expertOut.rows);
  plan.tokenIndex.forEach((t, i) => {
    addScaled(row(gradOut, i), plan.combineWeight[i], row(gradY, t));
    gradWeight[i] = dot(row(gradY, t), row(expertOut, i));
  });
  return { out: gradOut, weight: gradWeight };
}
