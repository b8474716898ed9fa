/** What the routers of a model did with one token. */
import type { LayerRun } from '../moe.js';

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
