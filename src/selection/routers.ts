/** Every router by name: how it selects, and what else it fixes. */
import type { Config, RouterName, Routing, RoutingInputs, Selection } from '../types.js';
import { selectBalanced, selectBest, selectByHash } from './baselines.js';
import { selectThreshold } from './threshold.js';
import { selectAll, selectTopK } from './topk.js';

export interface Router {
  readonly select: (routing: Routing, inputs: RoutingInputs, config: Config) => Selection;
  /** The combine weight w: p, sigmoid(z), or 1. Gradients flow through what it is made of (rules C4, G4, G5). */
  readonly weight: 'probs' | 'sigmoid' | 'one';
  /** Whether the load-balancing loss counts; else it is 0 (rule L4). */
  readonly balanced: boolean;
  /**
   * Which order of dropping is promised: by rank, then p, then token (`priority`), or by rank, any order within one
   * (`rank`), where the reference still drops by priority. `none`: nothing is dropped.
   */
  readonly dropOrder: 'priority' | 'rank' | 'none';
}

/** Columns of logits: the real experts, and the skip expert if there is one. */
export function numColumns(config: Config): number {
  return config.numExperts + (config.skipExpert ? 1 : 0);
}

export const routers: Readonly<Record<RouterName, Router>> = {
  threshold: {
    select: ({ probs }, { tokenMask }, { threshold }) => selectThreshold(probs, threshold!, tokenMask),
    weight: 'probs',
    balanced: true,
    dropOrder: 'priority',
  },
  dense: { select: selectAll, weight: 'probs', balanced: true, dropOrder: 'none' },
  topk: {
    select: (routing, inputs, { topK }) => selectTopK(routing, topK!, inputs),
    weight: 'probs',
    balanced: true,
    dropOrder: 'rank',
  },
  switch: {
    select: (routing, inputs) => selectTopK(routing, 1, inputs),
    weight: 'probs',
    balanced: true,
    dropOrder: 'rank',
  },
  hash: {
    select: ({ probs }, inputs, config) => selectByHash(probs.rows, numColumns(config), inputs),
    weight: 'one',
    balanced: false,
    dropOrder: 'rank',
  },
  base_eval: {
    select: ({ logits }, { tokenMask }) => selectBest(logits, tokenMask),
    weight: 'sigmoid',
    balanced: false,
    dropOrder: 'rank',
  },
  base_train: {
    select: ({ logits }, { tokenMask }) => selectBalanced(logits, tokenMask),
    weight: 'sigmoid',
    balanced: false,
    dropOrder: 'none',
  },
};
