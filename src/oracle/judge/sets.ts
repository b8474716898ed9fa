/** Which experts a token's y is the sum of, where they are not those that it should be. */
import { row } from '../../matrix.js';
import { byRank, isReal } from '../../selection/selection.js';
import type { Matrix } from '../../types.js';
import { errorOfSum, errorOfWeight, weightsApprox } from '../bounds/combine-approx.js';
import { expertsApprox, planOfKept } from '../bounds/forward-approx.js';
import { IN, OUT } from './choices.js';
import type { Judge } from './judge.js';
import type { Expected } from './suspicions.js';

/** What a token's y is the sum of. */
export interface OtherExperts {
  readonly token: number;
  readonly experts: readonly number[];
  /** Those that it should be. */
  readonly expected: readonly number[];
  /** Whether none is among them that the token may not choose: some are only missing. */
  readonly missing: boolean;
}

/** So many wrong tokens are looked at: all of them must be sums of other experts. */
const MOST_TOKENS = 4;

/** So many rows of experts are made for them. */
const MOST_ROWS = 4000;

/** All subsets of so many experts are tried. */
const MOST_FREE = 10;

/** By so many bits y must agree more than chance would have one of the tried sets agree. */
const BITS_OVER_CHANCE = 10;

/**
 * For the first wrong tokens, other experts whose sum with the right weights is y, within the bounds; undefined unless
 * there are some for each.
 *
 * Tried  every prefix of the order of rank; without any of its experts; one alone, one more, one for another; all subsets of
 *        few experts. Where so many may fit by chance, as in small formats and narrow rows, none is believed
 */
export function otherExperts(
  judge: Judge,
  y: Matrix,
  { kept, chosen, compared }: Expected,
  wrong: readonly number[],
): OtherExperts[] | undefined {
  const { call, experts: rounding, router } = judge;
  const { x, weights, config, inputs } = call;
  const numExperts = kept.length / x.rows;
  const tokens = wrong.slice(0, MOST_TOKENS);
  if (tokens.length * numExperts > MOST_ROWS || !tokens.every(t => isReal(inputs.tokenMask, t))) return undefined;
  const all = new Uint8Array(kept.length);
  for (const t of tokens) all.fill(IN, t * numExperts, (t + 1) * numExperts);
  const routing = { logits: compared.logits.value, probs: compared.probs.value };
  const plan = planOfKept(all, x.rows, routing, config);
  const { out } = expertsApprox(x, plan, weights, config, rounding);
  const combine = weightsApprox(all, compared, config, router, rounding);
  const { cols } = y;

  const found = tokens.map(t => {
    const terms = termsOf(t);
    const expected = flagged(kept, t, status => status === IN);
    const may = flagged(chosen, t, status => status !== OUT);
    const order = routing.probs.cols > 0 ? Array.from(byRank(row(routing.probs, t))) : may;
    let numTried = 0;
    for (const experts of candidates(order, expected, numExperts)) {
      numTried++;
      const bits = agreement(t, terms, experts);
      if (bits === undefined || isSame(experts, expected)) continue;
      if (bits < Math.log2(numTried) + BITS_OVER_CHANCE) return undefined;
      return { token: t, experts, expected, missing: experts.every(e => may.includes(e)) };
    }
    return undefined;
  });
  return found.every(other => other !== undefined) ? found : undefined;

  function flagged(flags: Uint8Array, t: number, is: (status: number) => boolean): number[] {
    return Array.from({ length: numExperts }, (_, e) => e).filter(e => is(flags[t * numExperts + e]));
  }

  /** Of each expert w·o, its error and its magnitude. */
  function termsOf(t: number) {
    return Array.from({ length: numExperts }, (_, e) => {
      let i = plan.expertOffsets[e];
      while (plan.tokenIndex[i] !== t) i++;
      const pair = t * numExperts + e;
      const [w, dw] = [combine.value.data[pair], errorOfWeight(combine, pair, rounding)];
      const [value, error, size] = [new Float64Array(cols), new Float64Array(cols), new Float64Array(cols)];
      for (let c = 0; c < cols; c++) {
        const [o, dO] = [out.value.data[i * cols + c], out.error[i * cols + c]];
        value[c] = w * o;
        error[c] = Math.abs(w) * dO + dw * (Math.abs(o) + dO);
        size[c] = (Math.abs(w) + dw) * (Math.abs(o) + dO);
      }
      return { value, error, size };
    });
  }

  /** In bits: how much less than the terms' own sizes y may be off by; undefined where it is off by more. */
  function agreement(t: number, terms: ReturnType<typeof termsOf>, experts: readonly number[]): number | undefined {
    let bits = 0;
    for (let c = 0; c < cols; c++) {
      let [value, error, size, largest] = [0, 0, 0, 0];
      for (const e of experts) {
        value += terms[e].value[c];
        error += terms[e].error[c];
        size += terms[e].size[c];
      }
      for (const { size: own } of terms) largest = Math.max(largest, own[c]);
      error += errorOfSum(experts.length, size, rounding);
      if (!(Math.abs(y.data[t * cols + c] - value) <= error)) return undefined;
      if (error < largest / 2) bits += Math.log2(largest / (2 * Math.max(error, largest * 2 ** -53)));
    }
    return bits;
  }
}

/** The likely ones first. */
function* candidates(order: readonly number[], expected: readonly number[], numExperts: number): Generator<number[]> {
  for (let n = 0; n <= order.length; n++) yield order.slice(0, n);
  if (expected.length <= MOST_FREE) yield* subsets(expected);
  const all = Array.from({ length: numExperts }, (_, e) => e);
  for (const e of all) yield [e];
  const others = all.filter(e => !expected.includes(e));
  for (const other of others) {
    yield [...expected, other];
    for (const lost of expected) yield [...expected.filter(e => e !== lost), other];
  }
  if (numExperts <= MOST_FREE) yield* subsets(all);
}

function* subsets(experts: readonly number[]): Generator<number[]> {
  for (let mask = 2 ** experts.length - 1; mask >= 0; mask--) yield experts.filter((_, bit) => mask & (1 << bit));
}

function isSame(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every(e => b.includes(e));
}
