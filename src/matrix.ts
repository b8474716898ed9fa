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
