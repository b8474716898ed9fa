/** Stages 3 and 4: probabilities -> who goes where, with which weight. */
import { sigmoid } from './activations.js';
import { capacityOf, keepByPriority } from './capacity.js';
import { largestMagnitude, zeros } from './matrix.js';
import { routers } from './selection/routers.js';
import { numRealTokens } from './selection/selection.js';
import type { Config, DispatchPlan, Floats, Routing, RoutingInputs, Selection } from './types.js';

/**
 * Select each token's experts, then keep what fits into each expert's capacity.
 *
 * Rule    D1-D16; XMoE (ACL Findings 2024) and the authors' routers
 * Shapes  logits, probs [T, E] -> plan with A <= T·E rows, grouped by expert, by token within an expert
 * Dropped a refused pair contributes nothing and is not re-routed; a token may lose all of its experts
 */
export function dispatch(routing: Routing, inputs: RoutingInputs, config: Config): DispatchPlan {
  return planWithinCapacity(routers[config.router].select(routing, inputs, config), routing, inputs, config);
}

/** The plan of a selection: what fits into each expert's capacity. Rules D11-D15. */
export function planWithinCapacity(
  selection: Selection,
  routing: Routing,
  inputs: RoutingInputs,
  config: Config,
): DispatchPlan {
  if (routers[config.router].dropOrder === 'none' || config.capacityFactor === null) {
    const kept = new Uint8Array(selection.expertIndex.length).fill(1);
    const received = countPerExpert(selection).subarray(config.skipExpert ? 1 : 0);
    return planOf(selection, kept, largestMagnitude(received), routing, config);
  }
  const numTokens = numRealTokens(selection.numTokens, inputs.tokenMask);
  const capacity = capacityOf(numTokens, config.capacityFactor, config.minCapacity ?? 4, config.numExperts);
  const kept = keepByPriority(selection, routing.probs, e => (config.skipExpert && e === 0 ? numTokens : capacity));
  return planOf(selection, kept, capacity, routing, config);
}

/** The plan in which the given pairs of a selection are kept. */
export function planOf(
  selection: Selection,
  kept: Uint8Array,
  capacity: number,
  routing: Routing,
  config: Config,
): DispatchPlan {
  const { numTokens, numExperts, tokenOffsets, expertIndex } = selection;
  const expertOffsets = new Int32Array(numExperts + 1);
  countPerExpert(selection, kept).forEach((count, e) => {
    expertOffsets[e + 1] = expertOffsets[e] + count;
  });
  const tokenIndex = new Int32Array(expertOffsets[numExperts]);
  const combineWeight = new Float64Array(expertOffsets[numExperts]);
  const nextRow = expertOffsets.slice(0, numExperts);
  for (let t = 0; t < numTokens; t++) {
    for (let pair = tokenOffsets[t]; pair < tokenOffsets[t + 1]; pair++) {
      if (!kept[pair]) continue;
      const i = nextRow[expertIndex[pair]]++;
      tokenIndex[i] = t;
      combineWeight[i] = weightOf(routing, t, expertIndex[pair], config);
    }
  }
  return { selection, kept, capacity, expertOffsets, tokenIndex, combineWeight };
}

/** The tokens that selected each expert or, given `kept`, those of them that it keeps. [E] */
export function countPerExpert(selection: Selection, kept?: Uint8Array): Int32Array {
  const counts = new Int32Array(selection.numExperts);
  selection.expertIndex.forEach((e, pair) => {
    counts[e] += kept ? kept[pair] : 1;
  });
  return counts;
}

/** w of one kept pair: p for softmax routers, sigmoid(z) for BASE, 1 for Hash (rules C1, C4). */
function weightOf({ logits, probs }: Routing, token: number, expert: number, config: Config): number {
  const index = token * logits.cols + expert;
  switch (routers[config.router].weight) {
    case 'probs':
      return probs.data[index];
    case 'sigmoid':
      return sigmoid(logits.data[index]);
    case 'one':
      return 1;
  }
}

/**
 * The gradients for logits and probs of what the plan took from them: its combine weights. The decisions are constants (G1).
 *
 * Rule    G1, G2, G4, G5
 * Shapes  gradWeight [A] -> logits, probs [T, E]
 */
export function dispatchBackward(gradWeight: Floats, plan: DispatchPlan, routing: Routing, config: Config): Routing {
  const grad = {
    logits: zeros(routing.logits.rows, routing.logits.cols),
    probs: zeros(routing.probs.rows, routing.probs.cols),
  };
  const { weight } = routers[config.router];
  for (let e = 0; e < plan.selection.numExperts; e++) {
    for (let i = plan.expertOffsets[e]; i < plan.expertOffsets[e + 1]; i++) {
      const index = plan.tokenIndex[i] * routing.logits.cols + e;
      const w = plan.combineWeight[i];
      if (weight === 'probs') grad.probs.data[index] = gradWeight[i];
      if (weight === 'sigmoid') grad.logits.data[index] = gradWeight[i] * w * (1 - w);
    }
  }
  return grad;
}
