/** What the routers did with each token, and what it cost. */
import { thresholdGaps } from '../margins.js';
import { row } from '../matrix.js';
import { VOCAB_SIZE } from '../model/config.js';
import { costOfPairs } from '../statistics.js';
import type { Config, DispatchPlan, Matrix } from '../types.js';
import type { Memory } from '../wasm/memory.js';
import type { PackedModel } from './packed-model.js';
import type { RoutedToken, TokenCost } from './types.js';

/** Where `select_f32` writes what each token chose: addresses. */
export interface Choices {
  readonly tokenOffsets: number;
  readonly expertIndex: number;
  readonly expertProbs: number;
  readonly margins: number;
}

/** How each token was routed for which `select_f32` chose. */
export function chosenTokens(memory: Memory, choices: Choices, numTokens: number): RoutedToken[] {
  const offsets = memory.words(choices.tokenOffsets, numTokens + 1);
  const expertIndex = memory.words(choices.expertIndex, offsets[numTokens]);
  const expertProbs = memory.floats(choices.expertProbs, offsets[numTokens]);
  const margins = memory.doubles(choices.margins, numTokens);
  const routed: RoutedToken[] = [];
  for (let t = 0; t < numTokens; t++) {
    const [experts, probs]: [number[], number[]] = [[], []];
    for (let pair = offsets[t]; pair < offsets[t + 1]; pair++) {
      experts.push(expertIndex[pair]);
      probs.push(expertProbs[pair]);
    }
    routed.push({ experts, probs, margin: margins[t] });
  }
  return routed;
}

/** How each token of a plan was routed. */
export function routedTokens(probs: Matrix, { selection, kept }: DispatchPlan, config: Config): RoutedToken[] {
  const { numTokens, tokenOffsets, expertIndex } = selection;
  const routed: RoutedToken[] = [];
  for (let t = 0; t < numTokens; t++) {
    const [first, end] = [tokenOffsets[t], tokenOffsets[t + 1]];
    const p = row(probs, t);
    const experts: number[] = [];
    for (let pair = first; pair < end; pair++) if (kept[pair]) experts.push(expertIndex[pair]);
    const gaps =
      config.router === 'threshold' ? thresholdGaps(p, expertIndex.subarray(first, end), config.threshold!) : [];
    routed.push({
      experts,
      probs: experts.map(e => p[e]),
      margin: gaps.reduce((least, gap) => Math.min(least, gap), Number.POSITIVE_INFINITY),
    });
  }
  return routed;
}

/**
 * What each byte of a read took.
 *
 * @param start the position of the first
 * @param routed by XMoE layer, then by byte
 * @param firstWithLogits the first byte whose logits were computed
 */
export function costsOf(
  { config, layers }: PackedModel,
  start: number,
  numTokens: number,
  routed: readonly (readonly RoutedToken[])[],
  firstWithLogits: number,
): TokenCost[] {
  const { dModel, dFfDense, numLayers, layer } = config;
  const moe = layers.flatMap(({ ffn }) => (ffn.kind === 'moe' ? [ffn] : []));
  const isGated = layers[0].ffn.isGated;
  const dense = (isGated ? 6 : 4) * dModel * dFfDense * (numLayers - moe.length);
  const projections = 8 * dModel * dModel * numLayers;
  const skip = layer.skipExpert ? 0 : -1;
  return Array.from({ length: numTokens }, (_, i) => {
    const ofToken = routed.map(tokens => tokens[i]);
    let moeFlops = 0;
    ofToken.forEach(({ experts }, m) => {
      const numReal = experts.includes(skip) ? experts.length - 1 : experts.length;
      moeFlops += costOfPairs(1, numReal, moe[m]).total;
    });
    const attention = 4 * dModel * (start + i + 1) * numLayers;
    const head = i >= firstWithLogits ? 2 * dModel * VOCAB_SIZE : 0;
    return { layers: ofToken, moeFlops, flops: projections + attention + dense + moeFlops + head };
  });
}
