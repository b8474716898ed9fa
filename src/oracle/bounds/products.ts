/** Products and sums of approximate matrices, as the backward of a layer takes them. */
import { linear } from '../../linear.js';
import { gatherRows, zeros } from '../../matrix.js';
import type { Matrix } from '../../types.js';
import { type Approximate, linearApprox } from './approximate.js';
import { floorOf, type Rounding } from './rounding.js';

/** ⟨a_i, b_i⟩ for each row. */
export function dots(a: Approximate, b: Approximate, rounding: Rounding): { value: Float64Array; error: Float64Array } {
  const { rows, cols } = a.value;
  const [value, error] = [new Float64Array(rows), new Float64Array(rows)];
  for (let i = 0; i < rows; i++) {
    let size = 0;
    for (let k = i * cols; k < (i + 1) * cols; k++) {
      const [p, dp, q, dq] = [a.value.data[k], a.error[k], b.value.data[k], b.error[k]];
      value[i] += p * q;
      error[i] += Math.abs(p) * dq + dp * (Math.abs(q) + dq);
      size += (Math.abs(p) + dp) * (Math.abs(q) + dq);
    }
    error[i] += rounding.sum(cols) * size + cols * floorOf(rounding.compute);
  }
  return { value, error };
}

/** grad W, for weights [out, in]: [n, out] -> [n, in]. */
export function throughWeights(grad: Approximate, w: Matrix, rounding: Rounding): Approximate {
  return linearApprox(grad, transpose(w), undefined, rounding);
}

/** a bᵀ, both approximate: |δ| ≤ Σ (δa + s (|a| + δa)) (|b| + δb) + |a| δb. */
export function product(a: Approximate, b: Approximate, rounding: Rounding): Approximate {
  const relative = rounding.sum(a.value.cols);
  const sizes = { ...b.value, data: b.error.map((e, i) => Math.abs(b.value.data[i]) + e) };
  const wide = { ...a.value, data: a.error.map((e, i) => e + relative * (Math.abs(a.value.data[i]) + e)) };
  const error = linear(wide, sizes).data as Float64Array;
  if (b.error.some(e => e > 0)) {
    const carried = linear(
      { ...a.value, data: a.value.data.map(Math.abs) as Float64Array },
      { ...b.value, data: b.error },
    );
    for (let i = 0; i < error.length; i++) error[i] += carried.data[i];
  }
  const floor = a.value.cols * floorOf(rounding.compute);
  return { value: linear(a.value, b.value), error: error.map(e => e + floor) };
}

export function columnSums({ value, error }: Approximate, rounding: Rounding): Approximate {
  const { rows, cols } = value;
  const sums = zeros(1, cols);
  const errors = new Float64Array(cols);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < cols; j++) {
      const [v, e] = [value.data[i * cols + j], error[i * cols + j]];
      sums.data[j] += v;
      errors[j] += e + rounding.sum(rows) * (Math.abs(v) + e);
    }
  }
  return { value: sums, error: errors };
}

export function transpose({ rows, cols, data }: Matrix): Matrix {
  const turned = zeros(cols, rows);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) turned.data[j * rows + i] = data[i * cols + j];
  return turned;
}

export function transposed({ value, error }: Approximate): Approximate {
  const errors = transpose({ ...value, data: error });
  return { value: transpose(value), error: errors.data as Float64Array };
}

export function gather({ value, error }: Approximate, rowIndex: Int32Array): Approximate {
  const errors = gatherRows({ ...value, data: error }, rowIndex);
  return { value: gatherRows(value, rowIndex), error: errors.data as Float64Array };
}

export function slice({ value, error }: Approximate, first: number, last: number): Approximate {
  const [start, end] = [first * value.cols, last * value.cols];
  return {
    value: { rows: last - first, cols: value.cols, data: value.data.subarray(start, end) },
    error: error.subarray(start, end),
  };
}

export function stack(rows: number, cols: number): Approximate {
  return { value: zeros(rows, cols), error: new Float64Array(rows * cols) };
}

export function put(into: Approximate, index: number, { value, error }: Approximate): void {
  into.value.data.set(value.data, index * into.value.cols);
  into.error.set(error, index * into.value.cols);
}

/** Rows that are being summed, their errors and their magnitudes: of the rows, and of all the products that they are made of. */
export interface Sums extends Approximate {
  readonly size: Float64Array;
  readonly sizeOfProducts: Float64Array;
}

export function sumsOf(rows: number, cols: number): Sums {
  const sizes = () => new Float64Array(rows * cols);
  return { ...stack(rows, cols), size: sizes(), sizeOfProducts: sizes() };
}

/** Σ |products| of `throughWeights`. */
export function magnitudesThrough({ value, error }: Approximate, w: Matrix): Matrix {
  const sizes = { ...value, data: error.map((e, i) => Math.abs(value.data[i]) + e) };
  return linear(sizes, transpose({ ...w, data: Float64Array.from(w.data, Math.abs) }));
}

/** `products` are the magnitudes of what each row is a sum of. */
export function add(into: Sums, rowIndex: Int32Array, { value, error }: Approximate, products: Matrix): void {
  const cols = value.cols;
  rowIndex.forEach((target, i) => {
    for (let j = 0; j < cols; j++) {
      const [to, from] = [target * cols + j, i * cols + j];
      into.value.data[to] += value.data[from];
      into.error[to] += error[from];
      into.size[to] += Math.abs(value.data[from]) + error[from];
      into.sizeOfProducts[to] += products.data[from];
    }
  });
}

/**
 * A sum of at most `numTerms` rows, in any order, taken in the format of the experts; or all of their `numProducts` products
 * in one running sum, as kernels with atomics or with fused projections take it.
 */
export function finished(sums: Sums, numTerms: number, numProducts: number, rounding: Rounding): Approximate {
  const { value, error, size, sizeOfProducts } = sums;
  const coarser = Math.max(1, rounding.store.unitRoundoff / rounding.u);
  const [ofTerms, ofProducts] = [rounding.sum(numTerms) * coarser, rounding.sum(numProducts)];
  return { value, error: error.map((e, i) => e + ofTerms * size[i] + ofProducts * sizeOfProducts[i]) };
}
