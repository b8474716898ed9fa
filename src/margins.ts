/** How far each decision of a call was from going the other way. */
import { queues } from './capacity.js';
import { countPerExpert } from './dispatch.js';
import { row } from './matrix.js';
import { routers } from './selection/routers.js';
import { byRank, isReal } from './selection/selection.js';
import { noisyLogits } from './selection/topk.js';
import type { Config, DispatchPlan, Floats, Routing, RoutingInputs } from './types.js';

/** One decision. Errors of the quantities compared that stay below `value` together cannot change it. */
export type Margin = ThresholdMargin | OrderMargin | CapacityMargin;

/** Whether `expert`, at `rank`, is selected: |mass before that rank − τ|. */
export interface ThresholdMargin {
  readonly kind: 'threshold';
  readonly token: number;
  readonly rank: number;
  readonly expert: number;
  readonly value: number;
}

/** Which of two neighbours comes first: the gap between `expert`, at `rank`, and `nextExpert` behind it. */
export interface OrderMargin {
  readonly kind: 'order';
  /** What is compared; `logits` have the noise added. */
  readonly of: 'probs' | 'logits';
  readonly token: number;
  readonly rank: number;
  readonly expert: number;
  readonly nextExpert: number;
  readonly value: number;
}

/** Which token a full expert keeps: the gap in p between its last kept `token` and its first dropped one, of equal `rank`. */
export interface CapacityMargin {
  readonly kind: 'capacity';
  readonly token: number;
  readonly droppedToken: number;
  readonly rank: number;
  readonly expert: number;
  readonly value: number;
}

/**
 * The margins of every decision: token by token, then expert by expert.
 *
 * Rule    M1-M3
 * Units   probabilities; logits where the router compares those
 * None    for Hash and BASE's training assignment, which compare no neighbours; none for capacity where its order is open
 */
export function marginsOf(routing: Routing, plan: DispatchPlan, config: Config, inputs: RoutingInputs = {}): Margin[] {
  const { selection } = plan;
  const received = countPerExpert(selection);
  const isContested = countPerExpert(selection, plan.kept).map((kept, e) => (kept < received[e] ? 1 : 0));
  const margins: Margin[] = [];
  for (let t = 0; t < selection.numTokens; t++) {
    if (!isReal(inputs.tokenMask, t)) continue;
    const numSelected = selection.tokenOffsets[t + 1] - selection.tokenOffsets[t];
    if (config.router === 'threshold') {
      margins.push(...thresholdMargins(t, row(routing.probs, t), numSelected, config.threshold!));
    }
    for (const comparison of comparisons(t, routing, config, inputs)) {
      margins.push(...orderMargins(t, comparison, numSelected, isContested));
    }
  }
  if (routers[config.router].dropOrder === 'priority') margins.push(...capacityMargins(routing, plan));
  return margins;
}

function thresholdMargins(token: number, p: Floats, numSelected: number, threshold: number): ThresholdMargin[] {
  const order = byRank(p);
  return thresholdGaps(p, order.subarray(0, numSelected), threshold).map((value, i) => {
    return { kind: 'threshold', token, rank: i + 1, expert: order[i + 1], value };
  });
}

/**
 * |mass before rank r − τ| of a token, at each rank r ≥ 1 up to the first rejected one. Rank 0 is forced and has none.
 *
 * Rule    M1
 * @param selected the token's experts, best first
 */
export function thresholdGaps(p: Floats, selected: ArrayLike<number>, threshold: number): number[] {
  const gaps: number[] = [];
  let massBefore = 0;
  for (let rank = 1; rank <= Math.min(selected.length, p.length - 1); rank++) {
    massBefore += p[selected[rank - 1]];
    gaps.push(Math.abs(massBefore - threshold));
  }
  return gaps;
}

/** Experts that a token compared with each other: `order[0]` has rank `firstRank`. */
interface Comparison {
  readonly of: 'probs' | 'logits';
  readonly values: Floats;
  readonly order: Int32Array;
  readonly firstRank: number;
}

function comparisons(token: number, routing: Routing, config: Config, inputs: RoutingInputs): Comparison[] {
  const [z, p] = [row(routing.logits, token), row(routing.probs, token)];
  const byProb: Comparison = { of: 'probs', values: p, order: byRank(p), firstRank: 0 };
  switch (config.router) {
    case 'threshold':
    case 'dense':
    case 'switch':
      return [byProb];
    case 'topk': {
      const noisy = noisyLogits(routing, inputs, token);
      const rest = byRank(noisy).filter(e => e !== byProb.order[0]);
      return [
        { ...byProb, order: byProb.order.subarray(0, 2) },
        { of: 'logits', values: noisy, order: rest, firstRank: 1 },
      ];
    }
    case 'base_eval':
      return [{ of: 'logits', values: z, order: byRank(z).subarray(0, 2), firstRank: 0 }];
    case 'hash':
    case 'base_train':
      return [];
  }
}

/** M2: where a swap changes the first choice (a top-1 count), the selected set, or a rank in an expert that drops tokens. */
function orderMargins(
  token: number,
  { of, values, order, firstRank }: Comparison,
  numSelected: number,
  isContested: Int32Array,
): OrderMargin[] {
  const margins: OrderMargin[] = [];
  for (let i = 0; i + 1 < order.length; i++) {
    const [rank, expert, nextExpert] = [firstRank + i, order[i], order[i + 1]];
    const changesFirst = rank === 0;
    const changesSet = rank + 1 === numSelected;
    const changesPriority = rank + 1 < numSelected && (isContested[expert] || isContested[nextExpert]);
    if (changesFirst || changesSet || changesPriority) {
      margins.push({ kind: 'order', of, token, rank, expert, nextExpert, value: values[expert] - values[nextExpert] });
    }
  }
  return margins;
}

/** M3: only where the last kept and the first dropped token have equal ranks; between ranks it is M2's business. */
function capacityMargins({ probs }: Routing, { selection, kept }: DispatchPlan): CapacityMargin[] {
  return queues(selection, probs).flatMap((queue, expert): CapacityMargin[] => {
    const numKept = queue.filter(({ pair }) => kept[pair]).length;
    const [last, dropped] = [queue[numKept - 1], queue[numKept]];
    if (!last || !dropped || last.rank !== dropped.rank) return [];
    const value = last.prob - dropped.prob;
    return [{ kind: 'capacity', token: last.token, droppedToken: dropped.token, rank: last.rank, expert, value }];
  });
}
