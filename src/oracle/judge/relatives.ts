/** What a wrong selection looks like: the name of what it does instead, where it has one. */
import { row } from '../../matrix.js';
import { byRank, isReal } from '../../selection/selection.js';
import { selectExceed, selectWithin } from '../../selection/threshold.js';
import type { Matrix, Routing, Selection } from '../../types.js';
import type { LayerCall } from '../types.js';

/** In which other way the experts `own` [T, E] follow from the implementation's numbers, if in a known one. Rule D4. */
export function relativeOf(call: LayerCall, { probs }: Routing, own: Uint8Array): string | undefined {
  const { config, inputs } = call;
  if (probs.cols === 0) return undefined;
  const padded = paddedThatChose(call, own);
  if (padded !== undefined) return `padded token ${padded} selects experts`;
  if (config.router !== 'threshold') return undefined;
  const threshold = config.threshold!;
  if (isSame(selectExceed(probs, threshold, inputs.tokenMask), own)) {
    return 'it selects as the "exceed" relative (Dynamic MoE) does: until the mass is above τ';
  }
  if (isSame(selectWithin(probs, threshold, inputs.tokenMask), own)) {
    return 'it selects as the "within" relative (top-p) does: while the mass stays at most τ';
  }
  return asOtherThreshold(call, probs, own);
}

function paddedThatChose({ x, inputs }: LayerCall, own: Uint8Array): number | undefined {
  const numExperts = own.length / x.rows;
  for (let t = 0; t < x.rows; t++) {
    if (!isReal(inputs.tokenMask, t) && own.subarray(t * numExperts, (t + 1) * numExperts).includes(1)) return t;
  }
  return undefined;
}

/** Where every token's experts are its most probable ones: how many always, or which τ explains their number. */
function asOtherThreshold({ inputs }: LayerCall, probs: Matrix, own: Uint8Array): string | undefined {
  let [least, most] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
  let isRanked = true;
  const counts = new Set<number>();
  for (let t = 0; t < probs.rows; t++) {
    if (!isReal(inputs.tokenMask, t)) continue;
    const order = byRank(row(probs, t));
    const flags = own.subarray(t * probs.cols, (t + 1) * probs.cols);
    const count = flags.reduce((sum, flag) => sum + flag, 0);
    counts.add(count);
    let mass = 0;
    for (let rank = 0; rank < count; rank++) {
      if (!flags[order[rank]]) isRanked = false;
      if (rank > 0) least = Math.max(least, mass);
      mass += probs.data[t * probs.cols + order[rank]];
    }
    if (count < probs.cols) most = Math.min(most, mass);
  }
  if (!isRanked) return 'not the most probable experts';
  if (counts.has(0)) return 'rank 0 not forced: some tokens have no expert';
  if (least < most) {
    const range = Number.isFinite(least) ? `between ${least} and ${most}` : `of at most ${most}`;
    return `it selects as for a τ ${range}`;
  }
  if (counts.size === 1) return `always the ${[...counts][0]} most probable`;
  return undefined;
}

function isSame({ numExperts, tokenOffsets, expertIndex }: Selection, flags: Uint8Array): boolean {
  let count = 0;
  for (let t = 0; t + 1 < tokenOffsets.length; t++) {
    for (let pair = tokenOffsets[t]; pair < tokenOffsets[t + 1]; pair++) {
      if (!flags[t * numExperts + expertIndex[pair]]) return false;
      count++;
    }
  }
  return count === flags.reduce((sum, flag) => sum + flag, 0);
}
