/** How many tokens an expert accepts, and which of them it keeps. */
import type { Matrix, Selection } from './types.js';

/**
 * C: the rows an expert accepts.
 *
 * Rule    D11; the authors' code, which lacks the min with T and fails when C > T (pinned)
 * Maths   C = min(T, max(⌈(γ·T)/E⌉, C_min)), T the real tokens, E the real experts, (γ·T)/E in float64 in that order
 */
export function capacityOf(numTokens: number, capacityFactor: number, minCapacity: number, numExperts: number): number {
  return Math.min(numTokens, Math.max(Math.ceil((capacityFactor * numTokens) / numExperts), minCapacity));
}

/**
 * Which selected pairs are kept when each expert takes its first C tokens in order of priority.
 *
 * Rule    D12, D13
 * Shapes  -> one flag for each pair of the selection: 1 = kept, 0 = dropped
 */
export function keepByPriority(selection: Selection, probs: Matrix, capacity: (expert: number) => number): Uint8Array {
  const kept = new Uint8Array(selection.expertIndex.length);
  queues(selection, probs).forEach((queue, e) => {
    for (const { pair } of queue.slice(0, capacity(e))) kept[pair] = 1;
  });
  return kept;
}

/** A token that wants an expert. */
export interface Candidate {
  /** Its place in `selection.expertIndex`. */
  readonly pair: number;
  readonly token: number;
  readonly rank: number;
  readonly prob: number;
}

/**
 * For each expert the tokens that selected it, in order of priority.
 *
 * Rule    D12; priority is lexicographic: better rank, then higher p, then lower token index (pinned)
 */
export function queues(selection: Selection, probs: Matrix): Candidate[][] {
  const { numTokens, numExperts, tokenOffsets, expertIndex } = selection;
  const queueOf: Candidate[][] = Array.from({ length: numExperts }, () => []);
  for (let t = 0; t < numTokens; t++) {
    for (let pair = tokenOffsets[t]; pair < tokenOffsets[t + 1]; pair++) {
      const e = expertIndex[pair];
      const prob = probs.cols > 0 ? probs.data[t * probs.cols + e] : 1; // Hash has no p: all equal
      queueOf[e].push({ pair, token: t, rank: pair - tokenOffsets[t], prob });
    }
  }
  for (const queue of queueOf) queue.sort((a, b) => a.rank - b.rank || b.prob - a.prob || a.token - b.token);
  return queueOf;
}
