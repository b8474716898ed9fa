/** What one call did, in a few numbers: how the tokens spread, and what it cost. */
import { countPerExpert } from './dispatch.js';
import { rows, sum } from './matrix.js';
import { numRealTokens } from './selection/selection.js';
import type { Config, Cost, DispatchPlan, Matrix, Statistics, Weights } from './types.js';

/**
 * The statistics of one call.
 *
 * Rule    S1; the authors' code. Means and shares are over real tokens; all are 0 when there is none.
 * Skip    a skip expert counts as an expert of its tokens, but is never full and has no hidden activations
 */
export function statisticsOf(plan: DispatchPlan, hidden: Matrix, config: Config, tokenMask?: Uint8Array): Statistics {
  const { selection, kept, capacity, expertOffsets } = plan;
  const { numExperts, tokenOffsets } = selection;
  const numTokens = numRealTokens(selection.numTokens, tokenMask);
  const perToken = (count: number) => (numTokens === 0 ? 0 : count / numTokens);

  let [numKept, numWithDrop, numWithoutFirst] = [0, 0, 0];
  const top1Counts = new Float64Array(numExperts);
  for (let t = 0; t < selection.numTokens; t++) {
    const [first, last] = [tokenOffsets[t], tokenOffsets[t + 1]];
    if (first === last) continue; // padding
    const keptOfToken = sum(kept.subarray(first, last));
    numKept += keptOfToken;
    if (keptOfToken < last - first) numWithDrop++;
    if (!kept[first]) numWithoutFirst++;
    top1Counts[selection.expertIndex[first]]++;
  }

  const firstReal = config.skipExpert ? 1 : 0;
  const keptCounts = countPerExpert(selection, kept).subarray(firstReal);
  return {
    selectedPerToken: perToken(selection.expertIndex.length),
    keptPerToken: perToken(numKept),
    tokensWithDrop: perToken(numWithDrop),
    tokensWithoutFirst: perToken(numWithoutFirst),
    expertsNotFull: numTokens === 0 ? 0 : keptCounts.filter(count => count < capacity).length / keptCounts.length,
    tokensPerExpert: Float64Array.from(countPerExpert(selection), perToken),
    top1Variation: variation(top1Counts),
    hiddenActive: shareAboveZero(rows(hidden, expertOffsets[firstReal], hidden.rows)),
  };
}

/** Population standard deviation over the mean; 0 where the mean is. */
function variation(counts: Float64Array): number {
  const mean = sum(counts) / counts.length;
  const variance = sum(counts.map(count => (count - mean) ** 2)) / counts.length;
  return mean === 0 ? 0 : Math.sqrt(variance) / mean;
}

function shareAboveZero({ data }: Matrix): number {
  return data.length === 0 ? 0 : data.filter((h: number) => h > 0).length / data.length;
}

/**
 * FLOPs of one call, biases and activations not counted; a multiply and an add are 2.
 *
 * Rule    S2
 * Maths   router 2·T·d·E, a column of a skip expert included; experts 4·d·m for each kept pair of a real expert, 6·d·m gated
 */
export function costOf(plan: DispatchPlan, weights: Weights, config: Config): Cost {
  const { rows: dFf, cols: dModel } = weights.up[0];
  const numSkipped = config.skipExpert ? plan.expertOffsets[1] : 0;
  const numPairs = plan.tokenIndex.length - numSkipped;
  const shape = { dModel, dFf, numLogits: weights.router.rows, isGated: weights.gate !== undefined };
  return costOfPairs(plan.selection.numTokens, numPairs, shape);
}

/** The same of so many tokens, and of so many kept pairs of real experts. */
export function costOfPairs(
  numTokens: number,
  numPairs: number,
  shape: { readonly dModel: number; readonly dFf: number; readonly numLogits: number; readonly isGated: boolean },
): Cost {
  const { dModel, dFf, numLogits, isGated } = shape;
  const router = 2 * numTokens * dModel * numLogits;
  const experts = (isGated ? 6 : 4) * dModel * dFf * numPairs;
  return { router, experts, total: router + experts };
}

/** FLOPs of the dense FFN that the experts replace, of width `denseFf` (D): 4·T·d·D. Rule S2. */
export function denseFlops(numTokens: number, dModel: number, denseFf: number): number {
  return 4 * numTokens * dModel * denseFf;
}
