/** Which pairs were kept, where an implementation does not say so but its y does. */
import { numColumns } from '../../selection/routers.js';
import type { Floats } from '../../types.js';
import { type Approximate, admits } from '../bounds/approximate.js';
import { combineTokenApprox, rowsOfTokens } from '../bounds/combine-approx.js';
import type { ForwardApprox } from '../bounds/forward-approx.js';
import { EITHER, IN, OUT } from './choices.js';
import { type Judge, usable } from './judge.js';

export interface Settled {
  /** OUT or IN for each pair. [T, E] */
  readonly kept: Uint8Array;
  /** Tokens of which several decisions are admissible, and none could be told to be theirs. */
  readonly open: ReadonlySet<number>;
  /** Whether `kept` is what was kept: no token is open, and no other decision would give a token's y. */
  readonly isSure: boolean;
  /** The first token whose combine weights tell decisions that are not possible together. */
  readonly impossible: number | undefined;
}

/** A token with more undecided pairs than these is not tried out: 2^8 sums at most. */
const MOST_UNDECIDED = 8;

/**
 * Decide the pairs that may be either: as the combine weights tell; else as the reference does, if that gives the token's
 * y; else as any combination that does. Where all were tried and none does, y is wrong whatever was decided, and the
 * reference's decisions stand. What is judged on these very pairs, rows of experts and gradients, asks whether they are sure.
 *
 * Shapes  possible: OUT, IN or EITHER, [T, E]; expected: the reference's decision on these, [T, E]; y [T, d] or none;
 *         `mayBe` says whether decisions that are possible one by one are possible together
 */
export function settle(
  judge: Judge,
  possible: Uint8Array,
  expected: Uint8Array,
  forward: ForwardApprox,
  weights: Approximate,
  y: Floats | Uint8Array | undefined,
  mayBe: (token: number, kept: Uint8Array) => boolean,
): Settled {
  const numExperts = numColumns(judge.call.config);
  const isOneEach = judge.call.config.router === 'base_train';
  const told = usable(judge, 'combine');
  // a weight that is not 0 tells that the pair is kept; one of 0 that it is not, unless it may be 0 by rounding
  const isTold = (i: number) => told !== undefined && (told.data[i] !== 0 || weights.value.data[i] > weights.error[i]);
  const kept = possible.map((status, i) => {
    if (status !== EITHER) return status;
    return isTold(i) ? (told!.data[i] !== 0 ? IN : OUT) : expected[i];
  });
  const rows = rowsOfTokens(forward.plan);
  const open = new Set<number>();
  let impossible: number | undefined;
  let isUnsure = false;
  const isAskedFor = [...judge.observation.tensors.keys()].some(
    name => name === 'expert_out' || name.startsWith('grad.'),
  );
  for (let t = 0; t < judge.call.x.rows; t++) {
    const undecided: number[] = [];
    for (let i = t * numExperts; i < (t + 1) * numExperts; i++) {
      if (possible[i] === EITHER && !isTold(i)) undecided.push(i);
    }
    if (undecided.length === 0) {
      if (told && impossible === undefined && !mayBe(t, kept)) impossible = t;
      continue;
    }
    const choices = choicesOf(undecided.length);
    let isExplained = y !== undefined && mayBe(t, kept) && explains(t, kept);
    if (!y || (!choices && !isExplained)) open.add(t);
    if (!choices) isUnsure = true;
    if (!y || !choices || (isExplained && !isAskedFor)) continue;
    for (const trial of explanations(t, undecided, choices)) {
      if (!isExplained) {
        kept.set(trial);
        isExplained = true;
        if (!isAskedFor) break;
      } else if (undecided.some(i => trial[i] !== kept[i])) {
        isUnsure = true;
        break;
      }
    }
  }
  return { kept, open, isSure: open.size === 0 && !isUnsure, impossible };

  /** Which of n undecided pairs may be kept together; undefined where there are too many to be tried. */
  function choicesOf(n: number): number[][] | undefined {
    if (isOneEach) return [[], ...Array.from({ length: n }, (_, bit) => [bit])]; // none, where the weights tell the one
    return n > MOST_UNDECIDED ? undefined : subsets(n);
  }

  function explains(token: number, flags: Uint8Array): boolean {
    const cols = judge.call.x.cols;
    const sum = combineTokenApprox(forward.out, weights, rows[token], flags, judge.experts);
    for (let c = 0; c < cols; c++) if (!admits(sum, c, y![token * cols + c])) return false;
    return true;
  }

  /** The decisions on a token that give its y: the same array each time. */
  function* explanations(
    token: number,
    undecided: readonly number[],
    choices: readonly (readonly number[])[],
  ): Generator<Uint8Array, void> {
    const trial = kept.slice();
    for (const choice of choices) {
      for (const pair of undecided) trial[pair] = OUT;
      for (const bit of choice) trial[undecided[bit]] = IN;
      if (mayBe(token, trial) && explains(token, trial)) yield trial;
    }
  }
}

/** All of 0 … n − 1. */
function subsets(n: number): number[][] {
  const bits = Array.from({ length: n }, (_, bit) => bit);
  return Array.from({ length: 2 ** n }, (_, mask) => bits.filter(bit => mask & (1 << bit)));
}
