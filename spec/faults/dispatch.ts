/** Faults of dispatch: capacity, and who is dropped. */
import type { LayerCall } from 'xmoe/oracle';
import { type Fault, faultsOf, OURS, XMOE } from './fault.js';
import { type Candidate, honest, neverDrops, type Parts } from './parts.js';
import { isReal, listsOf, pairsOf, selectionOf, significant } from './tools.js';

const ofDispatch = faultsOf('dispatch');
/** A call that fails, or that gives another plan. */
const ofFailure = faultsOf(['crashed', 'dispatch']);

const noLimit = Number.POSITIVE_INFINITY;

/** C by another formula, where there is one. */
function capacityBy(
  formula: (given: { T: number; E: number; factor: number; min: number; call: LayerCall; k: number }) => number,
): Partial<Parts> {
  return {
    capacity(call, selection) {
      const { config, x } = call;
      if (honest.capacity(call, selection) === noLimit) return noLimit;
      const T = Array.from({ length: x.rows }, (_, t) => t).filter(t => isReal(call, t)).length;
      const k = T === 0 ? 1 : selection.expertIndex.length / T;
      return formula({
        T,
        E: config.numExperts,
        factor: config.capacityFactor!,
        min: config.minCapacity ?? 4,
        call,
        k,
      });
    },
  };
}

function clamped(T: number, share: number, min: number): number {
  return Math.min(T, Math.max(share, min));
}

/** Some kept pairs changed: f(kept, of one pair) for every selected pair. */
function keeping(
  f: (isKept: boolean, pair: ReturnType<typeof pairsOf>[number], all: KeptPairs) => boolean,
): Partial<Parts> {
  return {
    keep(queues, capacity, call, selection) {
      const kept = honest.keep(queues, capacity, call, selection);
      const pairs = pairsOf(selection);
      return Uint8Array.from(pairs, pair => (f(kept[pair.pair] === 1, pair, { kept, pairs, call, capacity }) ? 1 : 0));
    },
  };
}

interface KeptPairs {
  readonly kept: Uint8Array;
  readonly pairs: ReturnType<typeof pairsOf>;
  readonly call: LayerCall;
  readonly capacity: number;
}

const ofRank = (rank: number) => (queue: readonly Candidate[]) => queue.filter(c => c.rank === rank);

const CAPACITY: readonly Fault[] = [
  ofDispatch(
    'capacity is ignored',
    'DeepSpeed #1658',
    capacityBy(() => noLimit),
  ),
  ofFailure(
    'a capacity above T fails',
    'DeepSpeed #5353',
    capacityBy(({ T, E, factor, min }) => {
      const capacity = Math.max(Math.ceil((factor * T) / E), min);
      if (capacity > T) throw new RangeError('topk: k is out of range');
      return capacity;
    }),
  ),
  ofDispatch(
    'capacity times k',
    XMOE,
    capacityBy(({ T, E, factor, min, k }) => clamped(T, Math.ceil((factor * T * k) / E), min)),
  ),
  ofDispatch(
    'capacity rounded down',
    XMOE,
    capacityBy(({ T, E, factor, min }) => clamped(T, Math.floor((factor * T) / E), min)),
  ),
  ofDispatch(
    'capacity rounded to the nearest',
    OURS,
    capacityBy(({ T, E, factor, min }) => clamped(T, Math.round((factor * T) / E), min)),
  ),
  ofDispatch(
    'capacity one too many',
    OURS,
    capacityBy(({ T, E, factor, min }) => clamped(T, Math.ceil((factor * T) / E) + 1, min)),
  ),
  ofDispatch(
    'the minimum of capacity is ignored',
    XMOE,
    capacityBy(({ T, E, factor }) => clamped(T, Math.ceil((factor * T) / E), 0)),
  ),
  ofDispatch(
    'the minimum of capacity is 4 whatever was asked',
    OURS,
    capacityBy(({ T, E, factor }) => clamped(T, Math.ceil((factor * T) / E), 4)),
  ),
  ofDispatch(
    'padding counts in the T of capacity',
    'Megatron #2142',
    capacityBy(({ E, factor, min, call }) => clamped(call.x.rows, Math.ceil((factor * call.x.rows) / E), min)),
  ),
  ofDispatch(
    'the skip expert counts in the E of capacity',
    OURS,
    capacityBy(({ T, E, factor, min, call }) =>
      clamped(T, Math.ceil((factor * T) / (E + (call.config.skipExpert ? 1 : 0))), min),
    ),
  ),
  ofDispatch(
    'a capacity factor of 0 is none',
    OURS,
    capacityBy(({ T, E, factor, min }) => (factor === 0 ? noLimit : clamped(T, Math.ceil((factor * T) / E), min))),
  ),
  ofDispatch('capacity shared among ranks: each rank has C places', OURS, {
    keep(queues, capacity, call, selection) {
      const kept = honest.keep(queues, capacity, call, selection);
      for (const queue of queues) {
        for (let rank = 0; rank < selection.numExperts; rank++)
          for (const { pair } of ofRank(rank)(queue).slice(0, capacity)) kept[pair] = 1;
      }
      return kept;
    },
  }),
  ofDispatch(
    'capacity for each 16 tokens apart',
    OURS,
    keeping((isKept, pair, { pairs, call, capacity }) => {
      if (capacity === noLimit || (call.config.skipExpert && pair.expert === 0)) return isKept;
      const block = Math.floor(pair.token / 16);
      const before = pairs.filter(
        p => p.expert === pair.expert && Math.floor(p.token / 16) === block && p.pair < pair.pair,
      );
      return isKept && before.length < Math.ceil(capacity / Math.ceil(call.x.rows / 16));
    }),
  ),
  ofDispatch('the skip expert is full at C', OURS, {
    keep: (queues, capacity, call, selection) =>
      honest.keep(queues, capacity, { ...call, config: { ...call.config, skipExpert: false } }, selection),
  }),
  ofDispatch('no drop means γ = 1', 'DeepSpeed #7138', {
    capacity(call, selection) {
      const { config } = call;
      if (neverDrops(config.router) || config.capacityFactor !== null) return honest.capacity(call, selection);
      return honest.capacity({ ...call, config: { ...config, capacityFactor: 1 } }, selection);
    },
  }),
  ofDispatch('dense mode drops', OURS, {
    capacity: (call, selection) =>
      call.config.router === 'dense'
        ? honest.capacity({ ...call, config: { ...call.config, router: 'switch' } }, selection)
        : honest.capacity(call, selection),
  }),
  ofDispatch('BASE in training cuts at C', 'XMoE’s code', {
    capacity: (call, selection) =>
      call.config.router === 'base_train'
        ? honest.capacity({ ...call, config: { ...call.config, router: 'switch' } }, selection)
        : honest.capacity(call, selection),
  }),
];

const ORDER: readonly Fault[] = [
  ofDispatch('priority by probability alone', XMOE, { priority: (a, b) => b.prob - a.prob || a.token - b.token }),
  ofDispatch('priority by rank alone', XMOE, { priority: (a, b) => a.rank - b.rank || a.token - b.token }),
  ofDispatch('priority by position', XMOE, { priority: (a, b) => a.token - b.token }),
  ofDispatch('the last come first', OURS, { priority: (a, b) => b.token - a.token }),
  ofDispatch('the worst rank first', OURS, { priority: (a, b) => b.rank - a.rank || b.prob - a.prob }),
  ofDispatch('the least probable first', OURS, {
    priority: (a, b) => a.rank - b.rank || a.prob - b.prob || a.token - b.token,
  }),
  ofDispatch('rank and probability added as they are', OURS, {
    priority: (a, b) => b.prob - 0.1 * b.rank - (a.prob - 0.1 * a.rank) || a.token - b.token,
  }),
  ofDispatch('the one-number priority in bf16', 'XMoE’s code', () => {
    const key = ({ rank, prob }: Candidate) => significant(8)(8 - rank + prob);
    return { priority: (a, b) => key(b) - key(a) || a.token - b.token };
  }),
];

const DROPPING: readonly Fault[] = [
  ofDispatch(
    'a token loses all when one expert refuses it',
    XMOE,
    keeping(
      (isKept, { token }, { kept, pairs }) => isKept && pairs.every(p => p.token !== token || kept[p.pair] === 1),
    ),
  ),
  ofDispatch(
    'a token that loses its first choice loses all',
    OURS,
    keeping((isKept, { token }, { kept, pairs }) => isKept && kept[pairs.find(p => p.token === token)!.pair] === 1),
  ),
  ofDispatch(
    'padding takes capacity',
    'Megatron #5542',
    keeping((isKept, { expert, token }, { call, capacity }) => {
      if (capacity === noLimit || expert !== 0 || call.config.skipExpert) return isKept;
      return isKept && Array.from({ length: token }, (_, t) => t).filter(t => !isReal(call, t)).length < capacity;
    }),
  ),
  ofDispatch(
    'an expert’s last place stays empty',
    OURS,
    keeping((isKept, pair, { kept, pairs, capacity }) => {
      const mine = pairs.filter(p => p.expert === pair.expert && kept[p.pair]);
      return isKept && (mine.length < 2 || mine.length < capacity || mine.at(-1) !== pair);
    }),
  ),
  faultsOf(['selection', 'dispatch'])('a refused pair is routed to the next idle expert', XMOE, {
    select(routing, call) {
      const right = honest.select(routing, call);
      const capacity = honest.capacity(call, right);
      const load = Array<number>(right.numExperts).fill(0);
      const lists = listsOf(right).map(list => {
        const chosen: number[] = [];
        for (const e of list) {
          const free =
            load[e] < capacity
              ? e
              : load.findIndex((count, other) => count < capacity && !list.includes(other) && !chosen.includes(other));
          chosen.push(free < 0 ? e : free);
          load[chosen.at(-1)!]++;
        }
        return chosen;
      });
      return selectionOf(lists, right.numExperts);
    },
  }),
];

export const dispatchFaults: readonly Fault[] = [...CAPACITY, ...ORDER, ...DROPPING];
