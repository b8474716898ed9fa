/** How every router states its choice: lists of experts, best first, one list for each token. */
import type { Floats, Selection } from '../types.js';

/**
 * The experts in order of value.
 *
 * Rule    D1
 * Ties    equal values: the lower expert index first (pinned; torch.topk leaves it open)
 */
export function byRank(values: Floats): Int32Array {
  const experts = Int32Array.from(values, (_, e) => e);
  return experts.sort((a, b) => values[b] - values[a] || a - b);
}

/** The expert of rank 0: the one of largest value, the lower index among equals. */
export function first(values: Floats): number {
  let best = 0;
  for (let e = 1; e < values.length; e++) if (values[e] > values[best]) best = e;
  return best;
}

/** The selection in which each real token chooses the experts that `choose` lists, best first; padding chooses none (D15). */
export function selectionOf(
  numTokens: number,
  numExperts: number,
  tokenMask: Uint8Array | undefined,
  choose: (token: number) => ArrayLike<number>,
): Selection {
  const tokenOffsets = new Int32Array(numTokens + 1);
  const expertIndex: number[] = [];
  for (let t = 0; t < numTokens; t++) {
    if (isReal(tokenMask, t)) expertIndex.push(...Array.from(choose(t)));
    tokenOffsets[t + 1] = expertIndex.length;
  }
  return { numTokens, numExperts, tokenOffsets, expertIndex: Int32Array.from(expertIndex) };
}

export function isReal(tokenMask: Uint8Array | undefined, token: number): boolean {
  return tokenMask === undefined || tokenMask[token] === 1;
}

export function numRealTokens(numTokens: number, tokenMask: Uint8Array | undefined): number {
  return tokenMask === undefined ? numTokens : tokenMask.reduce((sum, real) => sum + real, 0);
}
