/** Stage 1 and 2: x -> router logits -> probabilities. */
import { linear, linearBackwardInput, linearBackwardWeight } from './linear.js';
import { dot, row, zeros } from './matrix.js';
import type { Matrix, Routing, Weights } from './types.js';

/**
 * Score every expert for every token.
 *
 * Rule    R1, R2; XMoE (ACL Findings 2024)
 * Maths   logits z = x Wrᵀ, no bias; probs p = softmax(z) over all experts, never renormalised over the chosen ones
 * Shapes  x [T, d], weights.router [E, d] -> logits, probs [T, E]
 */
export function route(x: Matrix, weights: Weights): Routing {
  const logits = linear(x, weights.router);
  return { logits, probs: softmax(logits) };
}

/** p = exp(z − max z) / Σ exp(z − max z), row by row: a constant added to a row of z cancels (rule R2). */
export function softmax(logits: Matrix): Matrix {
  const probs = zeros(logits.rows, logits.cols);
  for (let t = 0; t < logits.rows; t++) {
    const [z, p] = [row(logits, t), row(probs, t)];
    let max = Number.NEGATIVE_INFINITY;
    for (let e = 0; e < z.length; e++) max = Math.max(max, z[e]);
    let sum = 0;
    for (let e = 0; e < z.length; e++) {
      p[e] = Math.exp(z[e] - max);
      sum += p[e];
    }
    for (let e = 0; e < p.length; e++) p[e] /= sum;
  }
  return probs;
}

/**
 * The gradients for x and Wr.
 *
 * Rule    G2
 * Maths   ∂z = ∂z direct + p ⊙ (∂p − ⟨p, ∂p⟩);  ∂x = ∂z Wr;  ∂Wr = ∂zᵀ x
 * Shapes  gradRouting: the gradients for logits and probs [T, E]; what reaches the logits without the softmax is in `logits`
 */
export function routeBackward(
  gradRouting: Routing,
  routing: Routing,
  x: Matrix,
  weights: Weights,
): { x: Matrix; router: Matrix } {
  const { rows, cols } = routing.probs;
  const gradLogits = zeros(rows, cols);
  for (let t = 0; t < rows; t++) {
    const [p, gradP, direct, gradZ] = [routing.probs, gradRouting.probs, gradRouting.logits, gradLogits].map(a =>
      row(a, t),
    );
    const inner = dot(p, gradP);
    for (let e = 0; e < cols; e++) gradZ[e] = direct[e] + p[e] * (gradP[e] - inner);
  }
  return { x: linearBackwardInput(gradLogits, weights.router), router: linearBackwardWeight(gradLogits, x) };
}
