/** What is said of one token: how it was routed, and how well it was predicted. */
import type { LayerRun } from '../moe.js';
import { first } from '../selection/selection.js';
import type { Floats } from '../types.js';

/** The experts that kept a token, best first, for each XMoE layer of a run. */
export function keptExperts(traces: readonly LayerRun[], token: number): number[][] {
  return traces.map(({ plan: { selection, kept } }) => {
    const experts: number[] = [];
    for (let pair = selection.tokenOffsets[token]; pair < selection.tokenOffsets[token + 1]; pair++) {
      if (kept[pair]) experts.push(selection.expertIndex[pair]);
    }
    return experts;
  });
}

/** −log2 softmax(logits)[id] = log2 Σ exp(z − z[id]); the largest z is taken out, so that nothing overflows. */
export function bitsOf(logits: Floats, id: number): number {
  const max = logits[first(logits)];
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - max);
  return (Math.log(sum) + (max - logits[id])) / Math.LN2;
}
