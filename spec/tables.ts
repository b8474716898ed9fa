/** A plan read straight from its lists, as the rules speak of it: pairs, and tables [T][E]. */
import type { DispatchPlan, Matrix, RoutingInputs } from 'xmoe';

/** A (token, expert) pair that was selected. */
export interface Pair {
  readonly token: number;
  readonly expert: number;
  readonly rank: number;
  readonly kept: boolean;
}

/** The selected pairs, token by token, by rank. */
export function pairsOf({ selection, kept }: Pick<DispatchPlan, 'selection' | 'kept'>): Pair[] {
  return Array.from({ length: selection.numTokens }, (_, token) => {
    const [first, last] = [selection.tokenOffsets[token], selection.tokenOffsets[token + 1]];
    return Array.from(selection.expertIndex.subarray(first, last), (expert, rank) => ({
      token,
      expert,
      rank,
      kept: kept[first + rank] === 1,
    }));
  }).flat();
}

/** The experts of one token, by rank. */
export function expertsOf({ selection }: Pick<DispatchPlan, 'selection'>, token: number): number[] {
  return Array.from(selection.expertIndex.subarray(selection.tokenOffsets[token], selection.tokenOffsets[token + 1]));
}

/** The combine weights by token and expert, from the rows of a plan; 0 where there is no row. */
export function weightTable({ selection, expertOffsets, tokenIndex, combineWeight }: DispatchPlan): number[][] {
  const table = Array.from({ length: selection.numTokens }, () => Array<number>(selection.numExperts).fill(0));
  for (let e = 0; e < selection.numExperts; e++) {
    for (let i = expertOffsets[e]; i < expertOffsets[e + 1]; i++) table[tokenIndex[i]][e] = combineWeight[i];
  }
  return table;
}

/** The tokens that are not padding. */
export function realTokens(numTokens: number, { tokenMask }: RoutingInputs): number[] {
  return Array.from({ length: numTokens }, (_, t) => t).filter(t => tokenMask === undefined || tokenMask[t] === 1);
}

/** Row i as a list. */
export function rowOf({ cols, data }: Matrix, i: number): number[] {
  return Array.from(data.subarray(i * cols, (i + 1) * cols));
}

export function total(values: Iterable<number>): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}
