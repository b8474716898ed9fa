/** Faults of selection that are not the threshold's own: which experts a token chooses. */
import { choosing, extracted, ofRanks, ofSelection, ranked, unique } from './choosing.js';
import { type Fault, OURS } from './fault.js';
import { honest, type Parts } from './parts.js';
import { isReal, listsOf, rowOf, selectionOf } from './tools.js';

/** Experts of these indices alone compete. */
function onlyExperts(isSeen: (e: number) => boolean): Partial<Parts> {
  return choosing(['threshold', 'dense', 'topk', 'switch', 'base_eval'], ({ right, p, z, call }) => {
    const left = right.filter(isSeen);
    if (left.length > 0 || right.length === 0) return left;
    const values = call.config.router === 'base_eval' ? z : p;
    return [ranked(values).filter(isSeen)[0]];
  });
}

const TOP_K: readonly Fault[] = [
  ofSelection(
    'one expert too few',
    OURS,
    choosing('topk', ({ right }) => right.slice(0, Math.max(1, right.length - 1))),
  ),
  ofRanks(
    'the noise is ignored',
    OURS,
    choosing('topk', ({ z, right, p }) => unique([right[0], ...ranked(z)]).slice(0, Math.min(right.length, p.length))),
  ),
  ofRanks(
    'the noise decides the first choice too',
    'XMoE’s code',
    choosing('topk', ({ z, noise, right }) => ranked(z.map((v, e) => v + noise[e])).slice(0, right.length)),
  ),
  ofRanks(
    'the noise is added twice',
    OURS,
    choosing('topk', ({ z, noise, right }) =>
      unique([right[0], ...ranked(z.map((v, e) => v + 2 * noise[e]))]).slice(0, right.length),
    ),
  ),
  ofRanks(
    'the noise is added to the probabilities',
    OURS,
    choosing('topk', ({ p, noise, right }) =>
      unique([right[0], ...ranked(p.map((v, e) => v + noise[e]))]).slice(0, right.length),
    ),
  ),
  ofRanks(
    'what was taken is masked with 0: negative logits lose to it',
    'vllm-omni #7175',
    choosing('topk', ({ z, noise, right }) => {
      const noisy = z.map((v, e) => (e === right[0] ? 0 : v + noise[e]));
      return unique([right[0], ...extracted(noisy, right.length - 1, 0)]);
    }),
  ),
  ofSelection(
    'Switch takes two experts',
    OURS,
    choosing('switch', ({ p }) => ranked(p).slice(0, 2)),
  ),
];

const BASELINES: readonly Fault[] = [
  ofSelection(
    'hash: the id modulo E, without the table',
    OURS,
    choosing('hash', ({ token, call }) => [
      call.inputs.tokenIds![token] % (call.config.numExperts + (call.config.skipExpert ? 1 : 0)),
    ]),
  ),
  ofSelection(
    'hash: the position in place of the id',
    OURS,
    choosing('hash', ({ token, call }) => [call.inputs.hashTable![token % call.inputs.hashTable!.length]]),
  ),
  ofSelection(
    'BASE at evaluation: the largest |z|',
    OURS,
    choosing('base_eval', ({ z }) => [ranked(z.map(Math.abs))[0]]),
  ),
  ofSelection(
    'BASE in training: each token its best expert',
    'XMoE’s code',
    choosing('base_train', ({ z }) => [ranked(z)[0]]),
  ),
  ofSelection('BASE in training: greedy, token by token, into places that are left', OURS, {
    select(routing, call) {
      const right = honest.select(routing, call);
      if (call.config.router !== 'base_train') return right;
      const places = right.expertIndex.length / right.numExperts;
      const load = Array<number>(right.numExperts).fill(0);
      const lists = listsOf(right).map((list, token) => {
        if (list.length === 0) return list;
        const free = ranked(rowOf(routing.logits, token)).find(e => load[e] < places)!;
        load[free]++;
        return [free];
      });
      return selectionOf(lists, right.numExperts);
    },
  }),
  ofSelection(
    'dense mode is a threshold of 1',
    OURS,
    choosing('dense', ({ p, right }) => {
      let mass = 0;
      return right.filter((e, rank) => {
        const takes = rank === 0 || mass < 1;
        mass += p[e];
        return takes;
      });
    }),
  ),
];

const ANY: readonly Fault[] = [
  ofRanks(
    'the best starts at 0: all-negative logits choose expert 0',
    'flashinfer #2822',
    choosing(['topk', 'switch', 'base_eval', 'threshold'], ({ z, right }) => {
      return right.length > 0 && z.every(v => v < 0) ? unique([0, ...right]).slice(0, right.length) : right;
    }),
  ),
  ofSelection(
    'what was taken is masked with p = 0: tails of probability 0 lose to it',
    'vllm-omni #7175',
    choosing(['threshold', 'dense'], ({ p, right }) => unique(extracted(p, right.length, 0))),
  ),
  ofSelection(
    'experts from 256 on are never considered',
    'imp #2056',
    onlyExperts(e => e < 256),
  ),
  ofSelection(
    'experts from 128 on are never considered',
    OURS,
    onlyExperts(e => e < 128),
  ),
  ofSelection(
    'experts from 32 on are never considered',
    OURS,
    onlyExperts(e => e < 32),
  ),
  ofSelection(
    'the id of an expert is kept in a byte',
    OURS,
    choosing('any', ({ right }) => unique(right.map(e => e % 256))),
  ),
  ofSelection(
    'a neighbour’s expert: ids are off by one in the upper half',
    'flashinfer #3547',
    choosing('any', ({ right, call }) => unique(right.map(e => (e > 2 && 2 * e > call.config.numExperts ? e - 1 : e)))),
  ),
  ofSelection('padding chooses too', 'Megatron #5542', {
    select(routing, call) {
      const { tokenMask: _, ...inputs } = call.inputs;
      return call.config.router === 'base_train'
        ? honest.select(routing, call)
        : honest.select(routing, { ...call, inputs });
    },
  }),
  ofSelection('tokens are packed without padding, their choices not unpacked', OURS, {
    select(routing, call) {
      const right = honest.select(routing, call);
      const lists = listsOf(right);
      const packed = lists.filter((_, t) => isReal(call, t));
      return selectionOf(
        lists.map((_, t) => packed[t] ?? []),
        right.numExperts,
      );
    },
  }),
  ofSelection(
    'above 32 tokens another kernel, which never takes the last expert',
    'sglang #27869',
    choosing(['threshold', 'dense', 'topk'], ({ call, right, p }) =>
      call.x.rows > 32 && right.length > 1 ? right.filter(e => e < p.length - 1) : right,
    ),
  ),
  ofSelection(
    'one thread for a token, 256 threads: later tokens choose expert 0',
    OURS,
    choosing('any', ({ token, right }) => (token < 256 || right.length === 0 ? right : [0])),
  ),
  ofSelection(
    'the second choice of a token is lost where E is 7',
    'MetaX #270',
    choosing(['threshold', 'topk'], ({ call, right }) =>
      call.config.numExperts === 7 ? right.filter((_, rank) => rank !== 1) : right,
    ),
  ),
  ofRanks('the choices of the token before', OURS, {
    select(routing, call) {
      const right = honest.select(routing, call);
      const lists = listsOf(right);
      return selectionOf(
        lists.map((list, t) => (t % 8 === 7 && list.length > 0 ? lists[t - 1] : list)),
        right.numExperts,
      );
    },
  }),
];

export const selectionFaults: readonly Fault[] = [...TOP_K, ...BASELINES, ...ANY];
