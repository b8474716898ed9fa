/** The baselines of the paper that give each token exactly one expert: Hash, and BASE in evaluation and in training. */
import { gatherRows, row } from '../matrix.js';
import type { Matrix, RoutingInputs, Selection } from '../types.js';
import { balancedAssignment } from './assignment.js';
import { first, isReal, selectionOf } from './selection.js';

/** Hash (Roller et al. 2021): a fixed table, token id -> expert. There is no router. Rule D7. */
export function selectByHash(numTokens: number, numExperts: number, inputs: RoutingInputs): Selection {
  const { tokenIds, hashTable, tokenMask } = inputs;
  return selectionOf(numTokens, numExperts, tokenMask, t => [hashTable![tokenIds![t]]]);
}

/** BASE (Lewis et al. 2021) at evaluation: argmax z, the lower index among equals. Rule D8. */
export function selectBest(logits: Matrix, tokenMask?: Uint8Array): Selection {
  return selectionOf(logits.rows, logits.cols, tokenMask, t => [first(row(logits, t))]);
}

/**
 * BASE in training: each expert exactly T/E of the real tokens, the total score the largest possible.
 *
 * Rule    D9; the authors' auction is approximate and cuts at C, this is exact and has no capacity (pinned)
 */
export function selectBalanced(logits: Matrix, tokenMask?: Uint8Array): Selection {
  const realTokens = Int32Array.from({ length: logits.rows }, (_, t) => t).filter(t => isReal(tokenMask, t));
  const expertOfReal = balancedAssignment(gatherRows(logits, realTokens));
  const expertOf = new Map(Array.from(realTokens, (t, i) => [t, expertOfReal[i]]));
  return selectionOf(logits.rows, logits.cols, tokenMask, t => [expertOf.get(t)!]);
}
