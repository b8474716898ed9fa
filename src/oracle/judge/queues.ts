/** Which tokens an expert may keep, when the numbers that make their order are known to within an error. */
import { routers } from '../../selection/routers.js';
import { numRealTokens } from '../../selection/selection.js';
import type { Config, RoutingInputs } from '../../types.js';
import type { Rounding } from '../bounds/rounding.js';
import { type Compared, EITHER, IN, intervals, noisy, OUT } from './choices.js';

/** A token that wants an expert, and the ranks that it may have there. */
export interface Wish {
  readonly token: number;
  /** Whether the token surely chose the expert. */
  readonly sure: boolean;
  readonly leastRank: number;
  readonly mostRank: number;
  readonly prob: number;
  readonly error: number;
}

/**
 * For each expert the tokens that chose it, or may have.
 *
 * Shapes  chosen: OUT, IN or EITHER for each pair, [T, E]
 */
export function wishesOf(
  chosen: Uint8Array,
  numTokens: number,
  numExperts: number,
  compared: Compared,
  inputs: RoutingInputs,
  config: Config,
  rounding: Rounding,
): Wish[][] {
  const wishes: Wish[][] = Array.from({ length: numExperts }, () => []);
  const hasProbs = compared.probs.value.cols > 0;
  for (let t = 0; t < numTokens; t++) {
    const own: number[] = [];
    for (let e = 0; e < numExperts; e++) if (chosen[t * numExperts + e] !== OUT) own.push(e);
    if (own.length === 0) continue;
    const probs = hasProbs ? intervals(compared.probs, t) : undefined;
    const then = config.router === 'topk' ? noisy(compared.logits, t, inputs, rounding) : probs;
    const isSure = (e: number) => chosen[t * numExperts + e] === IN;
    const isSurelyBefore = (a: number, b: number) =>
      then !== undefined && then.values[a] - then.errors[a] > then.values[b] + then.errors[b];
    const mayBeFirst = (e: number) =>
      config.router !== 'topk' ||
      own.every(f => probs!.values[e] + probs!.errors[e] >= probs!.values[f] - probs!.errors[f]);
    const firsts = config.router === 'topk' ? own.filter(mayBeFirst) : [];
    for (const e of own) {
      let [leastRank, mostRank] = [0, 0];
      for (const f of own) {
        if (f === e) continue;
        if (firsts.length === 1 && firsts[0] === f) {
          leastRank++;
          mostRank++;
          continue;
        }
        if (firsts.length === 1 && firsts[0] === e) continue;
        if (isSurelyBefore(f, e) && isSure(f) && !firsts.includes(e)) leastRank++;
        if (!isSurelyBefore(e, f) || firsts.includes(f)) mostRank++;
      }
      const [prob, error] = probs ? [probs.values[e], probs.errors[e]] : [1, 0];
      wishes[e].push({ token: t, sure: isSure(e), leastRank, mostRank, prob, error });
    }
  }
  return wishes;
}

/**
 * Whether wish `a` must be served before `b`: a better rank, or no worse a one and, where that order is promised, a
 * higher p by more than the errors of both, or more than `step`.
 */
export function isBefore(a: Wish, b: Wish, step: number): boolean {
  if (a.mostRank < b.leastRank) return true;
  return a.mostRank <= b.leastRank && a.prob - b.prob > Math.max(a.error + b.error, step);
}

/**
 * What two p may differ by and be in either order: the rounding of both in the one-number priority `levels − rank + p` of
 * the authors' code, an ulp of `levels` together; Infinity where the order within a rank is open.
 */
export function priorityStep(levels: number, config: Config, { u }: Rounding): number {
  return routers[config.router].dropOrder === 'priority'
    ? 2 ** Math.ceil(Math.log2(levels + 1)) * u
    : Number.POSITIVE_INFINITY;
}

/** The largest number of experts that a token may have chosen. */
export function levelsOf(chosen: Uint8Array, numTokens: number, numExperts: number): number {
  let levels = 1;
  for (let t = 0; t < numTokens; t++) {
    let count = 0;
    for (let e = 0; e < numExperts; e++) if (chosen[t * numExperts + e] !== OUT) count++;
    levels = Math.max(levels, count);
  }
  return levels;
}

/**
 * The capacities that an expert may have: the reference's first, then those that γ·T/E gives in another order of its
 * two operations (the authors' code takes (T/E)·γ), or with γ or all of it in float32. `undefined` where nothing is dropped.
 */
export function capacitiesOf(numTokens: number, inputs: RoutingInputs, config: Config): number[] | undefined {
  const { capacityFactor, minCapacity = 4, numExperts } = config;
  if (routers[config.router].dropOrder === 'none' || capacityFactor === null) return undefined;
  const numReal = numRealTokens(numTokens, inputs.tokenMask);
  const single = Math.fround(capacityFactor);
  const exact = (v: number) => v;
  const sharesOf = (factor: number, round: (v: number) => number) => [
    round(round(factor * numReal) / numExperts),
    round(round(numReal / numExperts) * factor),
    round(round(factor / numExperts) * numReal),
  ];
  const shares = [...sharesOf(capacityFactor, exact), ...sharesOf(single, exact), ...sharesOf(single, Math.fround)];
  return [...new Set(shares.map(share => Math.min(numReal, Math.max(Math.ceil(share), minCapacity))))];
}

/** Whether an expert computes nothing and takes every token. */
export function isSkipped(expert: number, { skipExpert }: Config): boolean {
  return skipExpert === true && expert === 0;
}

/** OUT, IN or EITHER for each pair: what may be kept of what is, or may be, chosen. [T, E] */
export function keepable(
  chosen: Uint8Array,
  wishes: readonly (readonly Wish[])[],
  capacities: readonly number[] | undefined,
  step: number,
  config: Config,
): Uint8Array {
  if (!capacities) return chosen;
  const status = chosen.slice();
  const [least, most] = [Math.min(...capacities), Math.max(...capacities)];
  wishes.forEach((wishesOfExpert, e) => {
    if (isSkipped(e, config) || wishesOfExpert.length <= least) return;
    for (const wish of wishesOfExpert) {
      let [surelyBefore, notAfter] = [0, 0];
      for (const other of wishesOfExpert) {
        if (other === wish) continue;
        if (other.sure && isBefore(other, wish, step)) surelyBefore++;
        if (!isBefore(wish, other, step)) notAfter++;
      }
      const at = wish.token * wishes.length + e;
      if (surelyBefore >= most) status[at] = OUT;
      else if (notAfter >= least) status[at] = EITHER;
    }
  });
  return status;
}
