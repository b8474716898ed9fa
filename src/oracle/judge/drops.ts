/** What a wrong dispatch looks like: the rule that would explain who was kept, where a known one does. */
import { capacityOf } from '../../capacity.js';
import { numColumns } from '../../selection/routers.js';
import { numRealTokens } from '../../selection/selection.js';
import type { Routing, Selection } from '../../types.js';
import type { LayerCall } from '../types.js';

interface Candidate {
  readonly token: number;
  readonly rank: number;
  readonly prob: number;
}

type Order = (a: Candidate, b: Candidate) => number;

const ORDERS: readonly [string, Order][] = [
  ['', (a, b) => a.rank - b.rank || b.prob - a.prob || a.token - b.token],
  ['priority by position', (a, b) => a.token - b.token],
  ['priority by probability alone', (a, b) => b.prob - a.prob || a.token - b.token],
  ['priority by rank alone', (a, b) => a.rank - b.rank || a.token - b.token],
  ['worse rank first', (a, b) => b.rank - a.rank || b.prob - a.prob || a.token - b.token],
  ['lower probability first', (a, b) => a.rank - b.rank || a.prob - b.prob || a.token - b.token],
];

/** A rule that keeps exactly these pairs [T, E], other than the right one. */
export function likenessOf(
  call: LayerCall,
  selection: Selection,
  routing: Routing,
  kept: Uint8Array,
): string | undefined {
  for (const [name, flags] of otherDrops(call, selection, routing)) {
    if (flags().every((flag, i) => flag === kept[i])) return `as if: ${name}`;
  }
  return undefined;
}

/** What other rules keep of a selection: [T, E]. */
export function otherDrops(call: LayerCall, selection: Selection, routing: Routing): [string, () => Uint8Array][] {
  const queues = queuesOf(selection, routing);
  const rules: [string, () => Uint8Array][] = [];
  for (const [ofCapacity, capacity] of capacities(call, selection)) {
    for (const [ofOrder, order] of ORDERS) {
      const name = [ofCapacity, ofOrder].filter(Boolean).join(', ');
      if (name !== '') rules.push([name, () => keptBy(queues, order, capacity, call)]);
    }
  }
  return rules;
}

function capacities({ config, inputs, x }: LayerCall, { tokenOffsets }: Selection): [string, number][] {
  const numReal = numRealTokens(x.rows, inputs.tokenMask);
  const { numExperts, minCapacity = 4, capacityFactor } = config;
  if (capacityFactor === null) return [];
  const share = (capacityFactor * numReal) / numExperts;
  const clamped = (c: number) => Math.min(numReal, Math.max(c, minCapacity));
  let mostChosen = 0;
  for (let t = 0; t < x.rows; t++) mostChosen = Math.max(mostChosen, tokenOffsets[t + 1] - tokenOffsets[t]);
  return [
    ['', capacityOf(numReal, capacityFactor, minCapacity, numExperts)],
    ['no capacity', Number.POSITIVE_INFINITY],
    ['capacity floored', clamped(Math.floor(share))],
    ['capacity rounded to the nearest', clamped(Math.round(share))],
    ['the minimum capacity ignored', Math.min(numReal, Math.ceil(share))],
    ['a minimum capacity of 4', Math.min(numReal, Math.max(Math.ceil(share), 4))],
    ['padding counted in the capacity', capacityOf(x.rows, capacityFactor, minCapacity, numExperts)],
    ['the skip expert counted in the capacity', capacityOf(numReal, capacityFactor, minCapacity, numColumns(config))],
    ['capacity times k', capacityOf(numReal, capacityFactor * (config.topK ?? mostChosen), minCapacity, numExperts)],
    ['capacity one too small', capacityOf(numReal, capacityFactor, minCapacity, numExperts) - 1],
    ['capacity one too large', capacityOf(numReal, capacityFactor, minCapacity, numExperts) + 1],
  ];
}

function queuesOf({ numTokens, numExperts, tokenOffsets, expertIndex }: Selection, { probs }: Routing): Candidate[][] {
  const queues: Candidate[][] = Array.from({ length: numExperts }, () => []);
  for (let t = 0; t < numTokens; t++) {
    for (let pair = tokenOffsets[t]; pair < tokenOffsets[t + 1]; pair++) {
      const e = expertIndex[pair];
      const prob = probs.cols > 0 ? probs.data[t * probs.cols + e] : 1;
      queues[e].push({ token: t, rank: pair - tokenOffsets[t], prob });
    }
  }
  return queues;
}

function keptBy(queues: Candidate[][], order: Order, capacity: number, { config, x }: LayerCall): Uint8Array {
  const kept = new Uint8Array(x.rows * queues.length);
  queues.forEach((queue, e) => {
    const room = config.skipExpert && e === 0 ? queue.length : Math.max(0, capacity);
    for (const { token } of [...queue].sort(order).slice(0, room)) kept[token * queues.length + e] = 1;
  });
  return kept;
}
