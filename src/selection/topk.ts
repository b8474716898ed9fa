/** Plain top-k, and the mode in which every expert is taken. */
import { row } from '../matrix.js';
import type { Floats, Routing, RoutingInputs, Selection } from '../types.js';
import { byRank, first, selectionOf } from './selection.js';

/**
 * The most probable expert, then the k − 1 best of the rest by noisy logits. Switch is k = 1.
 *
 * Rule    D6; the authors' top-k router, whose Gumbel noise (added at evaluation too) is an input here
 * Maths   rank 0 = argmax p;  ranks 1 … k − 1: z + noise descending, among the rest
 * Ties    the lower expert index first
 */
export function selectTopK(routing: Routing, topK: number, inputs: RoutingInputs): Selection {
  const { probs } = routing;
  return selectionOf(probs.rows, probs.cols, inputs.tokenMask, t => {
    const best = first(row(probs, t));
    const rest = byRank(noisyLogits(routing, inputs, t)).filter(e => e !== best);
    return [best, ...rest.subarray(0, topK - 1)];
  });
}

/** z + noise of one token; no noise is 0. */
export function noisyLogits({ logits }: Routing, { noise }: RoutingInputs, token: number): Floats {
  const z = row(logits, token);
  return noise ? z.map((value, e) => value + row(noise, token)[e]) : z;
}

/** Dense mode: every expert, by rank. Rule D5. */
export function selectAll(routing: Routing, inputs: RoutingInputs): Selection {
  const { probs } = routing;
  return selectionOf(probs.rows, probs.cols, inputs.tokenMask, t => byRank(row(probs, t)));
}
