/** Stage 5, first half: each expert's FFN over the rows that it was given. */
import { activations } from './activations.js';
import { linear, linearBackwardBias, linearBackwardInput, linearBackwardWeight } from './linear.js';
import { gatherRows, row, rows, scatterAddRows, zeros } from './matrix.js';
import type { Config, DispatchPlan, ExpertRows, Matrix, Weights } from './types.js';

/**
 * Run every expert on the tokens it keeps; an expert without tokens costs nothing.
 *
 * Rule    E1-E5; XMoE (ACL Findings 2024) (small experts are plain FFNs of width m = D / g)
 * Maths   out = W2 σ(W1 x + b1) + b2;  gated: out = W2 (σ(Wg x + bg) ⊙ (W1 x + b1)) + b2
 * Shapes  x [T, d], plan with A rows -> hidden [A, m], out [A, d], in plan order, not yet weighted
 */
export function runExperts(x: Matrix, plan: DispatchPlan, weights: Weights, config: Config): ExpertRows {
  const numRows = plan.tokenIndex.length;
  const hidden = zeros(numRows, weights.up[0].rows);
  const out = zeros(numRows, x.cols);
  for (const { expert, first, last } of busyExperts(plan, weights)) {
    const given = gatherRows(x, plan.tokenIndex.subarray(first, last));
    const activated = activate(preActivations(given, expert, weights), config);
    hidden.data.set(activated.data, first * hidden.cols);
    out.data.set(linear(activated, weights.down[expert], biasOf(weights.downBias, expert)).data, first * out.cols);
  }
  return { hidden, out };
}

/** The real experts that have rows: rows `first` up to `last`. A skip expert computes nothing (D10). */
function busyExperts({ expertOffsets, selection }: DispatchPlan, weights: Weights) {
  const numSkip = selection.numExperts - weights.up.length;
  return weights.up
    .map((_, expert) => ({ expert, first: expertOffsets[expert + numSkip], last: expertOffsets[expert + numSkip + 1] }))
    .filter(({ first, last }) => last > first);
}

interface PreActivations {
  /** W1 x + b1: [rows, m]. */
  readonly up: Matrix;
  /** Wg x + bg: [rows, m]; only in the gated forms. */
  readonly gate: Matrix | undefined;
}

function preActivations(given: Matrix, expert: number, weights: Weights): PreActivations {
  return {
    up: linear(given, weights.up[expert], biasOf(weights.upBias, expert)),
    gate: weights.gate && linear(given, weights.gate[expert], biasOf(weights.gateBias, expert)),
  };
}

/** σ(up), or σ(gate) ⊙ up. Rules E2, E3. */
function activate({ up, gate }: PreActivations, config: Config): Matrix {
  const { apply } = activations[config.activation];
  return { ...up, data: up.data.map((u, i) => (gate ? apply(gate.data[i]) * u : apply(u))) };
}

/** The gradients for the pre-activations, given those for the hidden activations. Rule G3. */
function activateBackward(gradHidden: Matrix, { up, gate }: PreActivations, config: Config): PreActivations {
  const { apply, derivative } = activations[config.activation];
  const g = gradHidden.data;
  if (!gate) return { up: { ...up, data: up.data.map((u, i) => g[i] * derivative(u)) }, gate };
  return {
    up: { ...up, data: up.data.map((_, i) => g[i] * apply(gate.data[i])) },
    gate: { ...gate, data: gate.data.map((h, i) => g[i] * up.data[i] * derivative(h)) },
  };
}

function biasOf(biases: Matrix | undefined, expert: number) {
  return biases && row(biases, expert);
}

/**
 * The gradients for x and the experts' weights; an expert without rows has zeros.
 *
 * Rule    G3, G6
 * Shapes  gradOut [A, d], the gradient for `out` -> x [T, d], and a gradient for each weight there is
 */
export function runExpertsBackward(
  gradOut: Matrix,
  x: Matrix,
  plan: DispatchPlan,
  weights: Weights,
  config: Config,
): { x: Matrix; weights: Omit<Weights, 'router'> } {
  const gradX = zeros(x.rows, x.cols);
  const grad = zerosLike(weights);
  for (const { expert, first, last } of busyExperts(plan, weights)) {
    const tokens = plan.tokenIndex.subarray(first, last);
    const given = gatherRows(x, tokens);
    const pre = preActivations(given, expert, weights);
    const gradOutRows = rows(gradOut, first, last);

    const hidden = activate(pre, config);
    grad.down[expert] = linearBackwardWeight(gradOutRows, hidden);
    if (grad.downBias) linearBackwardBias(gradOutRows, row(grad.downBias, expert));

    const gradPre = activateBackward(linearBackwardInput(gradOutRows, weights.down[expert]), pre, config);
    grad.up[expert] = linearBackwardWeight(gradPre.up, given);
    if (grad.upBias) linearBackwardBias(gradPre.up, row(grad.upBias, expert));
    scatterAddRows(gradX, tokens, linearBackwardInput(gradPre.up, weights.up[expert]));

    if (grad.gate && gradPre.gate && weights.gate) {
      grad.gate[expert] = linearBackwardWeight(gradPre.gate, given);
      if (grad.gateBias) linearBackwardBias(gradPre.gate, row(grad.gateBias, expert));
      scatterAddRows(gradX, tokens, linearBackwardInput(gradPre.gate, weights.gate[expert]));
    }
  }
  return { x: gradX, weights: grad };
}

function zerosLike({ up, upBias, gate, gateBias, down, downBias }: Weights) {
  const like = (a: Matrix) => zeros(a.rows, a.cols);
  return {
    up: up.map(like),
    ...(upBias && { upBias: like(upBias) }),
    ...(gate && { gate: gate.map(like) }),
    ...(gateBias && { gateBias: like(gateBias) }),
    down: down.map(like),
    ...(downBias && { downBias: like(downBias) }),
  };
}
