/** Dense row-major matrices and views of their rows. */
import type { Floats, Matrix } from './types.js';

export function zeros(rows: number, cols: number): Matrix {
  return { rows, cols, data: new Float64Array(rows * cols) };
}

/** Row i, a view. */
export function row(a: Matrix, i: number): Floats {
  return a.data.subarray(i * a.cols, (i + 1) * a.cols);
}

/** Rows `first` up to `last`, a view. */
export function rows(a: Matrix, first: number, last: number): Matrix {
  return { rows: last - first, cols: a.cols, data: a.data.subarray(first * a.cols, last * a.cols) };
}

/** The listed rows of `a`, copied in that order. */
export function gatherRows(a: Matrix, rowIndex: Int32Array): Matrix {
  const gathered = zeros(rowIndex.length, a.cols);
  for (let i = 0; i < rowIndex.length; i++) gathered.data.set(row(a, rowIndex[i]), i * a.cols);
  return gathered;
}

/** Adds row i of `a` to row `rowIndex[i]` of `into`: the transpose of `gatherRows`. */
export function scatterAddRows(into: Matrix, rowIndex: Int32Array, a: Matrix): void {
  rowIndex.forEach((target, i) => {
    addScaled(row(into, target), 1, row(a, i));
  });
}

/** into += scale · a. */
export function addScaled(into: Floats, scale: number, a: Floats): void {
  for (let i = 0; i < into.length; i++) into[i] += scale * a[i];
}

/** ⟨a, b⟩, summed in order from 0. */
export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/**
 * ⟨a, b⟩ with the rounding errors of the sum carried along (Neumaier 1974), for scalars whose terms may cancel: those of
 * a recorded loss are 15,000 times larger than it is.
 */
export function compensatedDot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [total, lost] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    const term = a[i] * b[i];
    const next = total + term;
    lost += Math.abs(total) >= Math.abs(term) ? total - next + term : term - next + total;
    total = next;
  }
  return total + lost;
}

export function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

/** max |v|; 0 for no values. */
export function largestMagnitude(values: Iterable<number>): number {
  let largest = 0;
  for (const value of values) largest = Math.max(largest, Math.abs(value));
  return largest;
}
