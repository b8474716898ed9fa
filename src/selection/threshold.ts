/** The adaptive router of XMoE, and the two relatives that differ from it by one word. */
import { row } from '../matrix.js';
import type { Matrix, Selection } from '../types.js';
import { byRank, selectionOf } from './selection.js';

/**
 * XMoE: the smallest prefix of a token's experts, most probable first, whose mass reaches the threshold.
 *
 * Rule    D2, D3; XMoE (ACL Findings 2024)
 * Maths   keep rank r  iff  r = 0  or  p(0) + … + p(r−1) < τ, strictly, summed in float64 in that order
 * Shapes  probs [T, E] -> one to E experts for each real token
 * Ties    equal probabilities: the lower expert index first
 */
export function selectThreshold(probs: Matrix, threshold: number, tokenMask?: Uint8Array): Selection {
  return selectPrefix(probs, threshold, tokenMask, massBefore => massBefore < threshold);
}

/** Dynamic MoE (arXiv 2403.07652), "exceed": stops when the mass is **above** τ, so mass equal to τ takes one more. Rule D4. */
export function selectExceed(probs: Matrix, threshold: number, tokenMask?: Uint8Array): Selection {
  return selectPrefix(probs, threshold, tokenMask, massBefore => massBefore <= threshold);
}

/** The common "top-p" gate, "within": takes experts while their mass, the new one included, is at most τ. Rule D4. */
export function selectWithin(probs: Matrix, threshold: number, tokenMask?: Uint8Array): Selection {
  return selectPrefix(probs, threshold, tokenMask, (_, mass) => mass <= threshold);
}

/** Rank 0 is forced (never none); further ranks are taken until `takes` refuses one. τ > 1 is out of reach: every expert. */
function selectPrefix(
  probs: Matrix,
  threshold: number,
  tokenMask: Uint8Array | undefined,
  takes: (massBefore: number, mass: number) => boolean,
): Selection {
  return selectionOf(probs.rows, probs.cols, tokenMask, t => {
    const p = row(probs, t);
    const order = byRank(p);
    if (threshold > 1) return order; // said here, since a rounded mass may pass 1
    let count = 1;
    let mass = p[order[0]];
    while (count < order.length && takes(mass, mass + p[order[count]])) mass += p[order[count++]];
    return order.subarray(0, count);
  });
}
