/** Other choices for a token: how faults of selection are written. */
import type { RouterName } from 'xmoe';
import type { LayerCall } from 'xmoe/oracle';
import { faultsOf } from './fault.js';
import { honest, type Parts } from './parts.js';
import { isReal, listsOf, rowOf, selectionOf } from './tools.js';

export const ofSelection = faultsOf('selection');
/** Ranks are not handed over: where all the same experts are chosen in another order, it shows in who is dropped. */
export const ofRanks = faultsOf(['selection', 'dispatch']);

/** What one real token sees. */
export interface Seen {
  readonly p: readonly number[];
  readonly z: readonly number[];
  readonly noise: readonly number[];
  readonly token: number;
  readonly call: LayerCall;
  /** What it should choose. */
  readonly right: readonly number[];
}

/** Another choice for each real token of these routers. */
export function choosing(
  routers: RouterName | readonly RouterName[] | 'any',
  choose: (seen: Seen) => readonly number[],
): Partial<Parts> {
  return {
    select(routing, call) {
      const selection = honest.select(routing, call);
      const { router } = call.config;
      if (routers !== 'any' && ![routers].flat().includes(router)) return selection;
      const lists = listsOf(selection).map((right, token) => {
        if (!isReal(call, token)) return right;
        const [p, z] = [rowOf(routing.probs, token), rowOf(routing.logits, token)];
        const noise = call.inputs.noise ? rowOf(call.inputs.noise, token) : z.map(() => 0);
        return choose({ p, z, noise, token, call, right });
      });
      return selectionOf(lists, selection.numExperts);
    },
  };
}

/** Best first; of equals the lower index. */
export function ranked(values: readonly number[]): number[] {
  return values.map((_, e) => e).sort((a, b) => values[b] - values[a] || a - b);
}

/** The best of `values`, found one by one: what was found is set to `mask` and may be found again. */
export function extracted(values: readonly number[], count: number, mask: number): number[] {
  const left = [...values];
  return Array.from({ length: count }, () => {
    const best = left.reduce((b, v, e) => (v > left[b] ? e : b), 0);
    left[best] = mask;
    return best;
  });
}

export const unique = (list: readonly number[]) => [...new Set(list)];
