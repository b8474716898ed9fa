/** Plans, selections and matrices, read and made: what the faults are written with. */
import type { DispatchPlan, Matrix, Selection } from 'xmoe';
import type { LayerCall } from 'xmoe/oracle';

export function pairsOf({ numTokens, tokenOffsets, expertIndex }: Selection) {
  return Array.from({ length: numTokens }, (_, token) =>
    Array.from(expertIndex.subarray(tokenOffsets[token], tokenOffsets[token + 1]), (expert, rank) => ({
      pair: tokenOffsets[token] + rank,
      token,
      rank,
      expert,
    })),
  ).flat();
}

/** The selection in which token t chose the experts of list t, best first. */
export function selectionOf(lists: readonly (readonly number[])[], numExperts: number): Selection {
  const tokenOffsets = new Int32Array(lists.length + 1);
  lists.forEach((list, t) => {
    tokenOffsets[t + 1] = tokenOffsets[t] + list.length;
  });
  return { numTokens: lists.length, numExperts, tokenOffsets, expertIndex: Int32Array.from(lists.flat()) };
}

export function listsOf({ numTokens, tokenOffsets, expertIndex }: Selection): number[][] {
  return Array.from({ length: numTokens }, (_, t) => [...expertIndex.subarray(tokenOffsets[t], tokenOffsets[t + 1])]);
}

/** The expert of each row of a plan. */
export function expertOfRow({ expertOffsets, tokenIndex, selection }: DispatchPlan): Int32Array {
  const expertOf = new Int32Array(tokenIndex.length);
  for (let e = 0; e < selection.numExperts; e++) expertOf.fill(e, expertOffsets[e], expertOffsets[e + 1]);
  return expertOf;
}

export function isReal({ inputs }: LayerCall, token: number): boolean {
  return inputs.tokenMask === undefined || inputs.tokenMask[token] === 1;
}

/** Value by value: f(value, row, column). */
export function mapped(a: Matrix, f: (value: number, i: number, j: number) => number): Matrix {
  return {
    rows: a.rows,
    cols: a.cols,
    data: Float64Array.from(a.data, (v, i) => f(v, Math.floor(i / a.cols), i % a.cols)),
  };
}

export function mappedAll(list: readonly Matrix[], f: (value: number, i: number, j: number) => number): Matrix[] {
  return list.map(a => mapped(a, f));
}

export function sumOf(a: Matrix, b: Matrix): Matrix {
  return { ...a, data: Float64Array.from(a.data, (v, i) => v + b.data[i]) };
}

/** To this many significant bits, ties to even: bf16 has 8, f16 and tf32 have 11. The range is float64's. */
export function significant(bits: number): (value: number) => number {
  const factor = 2 ** (53 - bits) + 1;
  return value => value * factor - (value * factor - value);
}

/** w_e · a of each row, and its bias; rows of a skip expert are zero. */
export function linearRows(plan: DispatchPlan, a: Matrix, list: readonly Matrix[], bias: Matrix | undefined): Matrix {
  const expertOf = expertOfRow(plan);
  const numSkip = plan.selection.numExperts - list.length;
  const blank = {
    rows: plan.tokenIndex.length,
    cols: list[0].rows,
    data: new Float64Array(plan.tokenIndex.length * list[0].rows),
  };
  return mapped(blank, (_, i, j) => {
    const e = expertOf[i] - numSkip;
    if (e < 0) return 0;
    let sum = bias?.data[e * bias.cols + j] ?? 0;
    for (let l = 0; l < a.cols; l++) sum += a.data[plan.tokenIndex[i] * a.cols + l] * list[e].data[j * a.cols + l];
    return sum;
  });
}

/** The same plan, over rows that were gathered already. */
export function ofRows(plan: DispatchPlan): DispatchPlan {
  return { ...plan, tokenIndex: Int32Array.from(plan.tokenIndex, (_, i) => i) };
}

export function rowOf(a: Matrix, i: number): number[] {
  return [...a.data.subarray(i * a.cols, (i + 1) * a.cols)];
}

/** Zeros of the same shape. */
export function noGradient(a: Matrix): Matrix {
  return mapped(a, () => 0);
}
