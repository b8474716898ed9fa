/** Which way an implementation breaks exact ties: a property of it, to be told and not to be punished. */

import type { Finding } from '../types.js';
import { type Compared, EITHER } from './choices.js';
import type { Wish } from './queues.js';

/** Counts of ties that were broken in each way. */
interface Ties {
  lower: number;
  higher: number;
  mixed: number;
}

/**
 * Ties of experts: a token chose some of several experts of exactly equal value.
 *
 * Shapes  own: 1 = selected; status: OUT, IN or EITHER; both [T, E]
 */
export function expertTies(own: Uint8Array, status: Uint8Array, { value }: Compared['probs']): Finding[] {
  const ties: Ties = { lower: 0, higher: 0, mixed: 0 };
  const { cols, data } = value;
  for (let start = 0; start < status.length; start += cols) {
    const open: number[] = [];
    for (let at = start; at < start + cols; at++) if (status[at] === EITHER) open.push(at);
    if (open.length < 2 || open.some(at => data[at] !== data[open[0]])) continue;
    count(
      ties,
      open.filter(at => own[at] === 1),
      open.filter(at => own[at] === 0),
    );
  }
  return told(ties, 'selection', 'experts of equal probability', 'expert');
}

/** Ties of tokens: a full expert kept some of several tokens of the same rank and exactly equal probability. */
export function tokenTies(wishes: readonly (readonly Wish[])[], kept: Uint8Array): Finding[] {
  const ties: Ties = { lower: 0, higher: 0, mixed: 0 };
  wishes.forEach((queue, e) => {
    const isKept = (wish: Wish) => kept[wish.token * wishes.length + e] === 1;
    const losers = queue.filter(wish => wish.sure && !isKept(wish) && wish.leastRank === wish.mostRank);
    const groups = new Map(losers.map(wish => [`${wish.leastRank} ${wish.prob}`, wish]));
    for (const { leastRank, prob } of groups.values()) {
      const tied = queue.filter(
        wish => wish.leastRank === leastRank && wish.mostRank === leastRank && wish.prob === prob,
      );
      count(
        ties,
        tied.filter(isKept).map(({ token }) => token),
        tied.filter(wish => !isKept(wish)).map(({ token }) => token),
      );
    }
  });
  return told(ties, 'dispatch', 'tokens of equal rank and probability', 'token');
}

function count(ties: Ties, winners: readonly number[], losers: readonly number[]): void {
  if (winners.length === 0 || losers.length === 0) return;
  if (Math.max(...winners) < Math.min(...losers)) ties.lower++;
  else if (Math.min(...winners) > Math.max(...losers)) ties.higher++;
  else ties.mixed++;
}

function told({ lower, higher, mixed }: Ties, stage: 'selection' | 'dispatch', what: string, of: string): Finding[] {
  const total = lower + higher + mixed;
  if (total === 0) return [];
  const order =
    lower === total
      ? `the lower ${of} index first`
      : higher === total
        ? `the higher ${of} index first`
        : 'in no order of index';
  return [
    {
      kind: 'tie order',
      severity: 'property',
      stage,
      detail: `${what}: ${order} (${total} tie${total === 1 ? '' : 's'})`,
    },
  ];
}
