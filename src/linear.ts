/** The linear layer, whose weights are [out, in], and its backward. */
import { zeros } from './matrix.js';
import type { Floats, Matrix } from './types.js';

/**
 * y = x wᵀ + bias: the product of every linear layer, whose weights are [out, in].
 *
 * Shapes  x [n, k], w [m, k], bias [m] -> y [n, m]
 * Order   each y[i, j] is one float64 sum in order of k, from 0, the bias last: it does not depend on n or m
 *
 * Four rows by four outputs share their loads; a lone row or output of the tail takes the same sums one at a time.
 */
export function linear(x: Matrix, w: Matrix, bias?: Floats): Matrix {
  const [n, m, k] = [x.rows, w.rows, x.cols];
  const y = zeros(n, m);
  const [xs, ws, ys] = [x.data, w.data, y.data];
  for (let i = 0; i < n; i += 4) {
    for (let j = 0; j < m; j += 4) {
      if (i + 4 <= n && j + 4 <= m) tile(xs, ws, ys, i, j, m, k);
      else {
        for (let r = i; r < Math.min(i + 4, n); r++) {
          for (let c = j; c < Math.min(j + 4, m); c++) {
            let sum = 0;
            for (let l = 0; l < k; l++) sum += xs[r * k + l] * ws[c * k + l];
            ys[r * m + c] = sum;
          }
        }
      }
    }
  }
  if (bias) for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) ys[i * m + j] += bias[j];
  return y;
}

/** y[i … i + 3, j … j + 3] = x[i … i + 3, :] · w[j … j + 3, :]ᵀ, sixteen sums side by side. */
// biome-ignore format: a tile reads best as a square
function tile(xs: Floats, ws: Floats, ys: Floats, i: number, j: number, m: number, k: number): void {
  let s00 = 0, s01 = 0, s02 = 0, s03 = 0;
  let s10 = 0, s11 = 0, s12 = 0, s13 = 0;
  let s20 = 0, s21 = 0, s22 = 0, s23 = 0;
  let s30 = 0, s31 = 0, s32 = 0, s33 = 0;
  const [x0, x1, x2, x3] = [i * k, (i + 1) * k, (i + 2) * k, (i + 3) * k];
  const [w0, w1, w2, w3] = [j * k, (j + 1) * k, (j + 2) * k, (j + 3) * k];
  for (let l = 0; l < k; l++) {
    const a0 = xs[x0 + l], a1 = xs[x1 + l], a2 = xs[x2 + l], a3 = xs[x3 + l];
    const b0 = ws[w0 + l], b1 = ws[w1 + l], b2 = ws[w2 + l], b3 = ws[w3 + l];
    s00 += a0 * b0; s01 += a0 * b1; s02 += a0 * b2; s03 += a0 * b3;
    s10 += a1 * b0; s11 += a1 * b1; s12 += a1 * b2; s13 += a1 * b3;
    s20 += a2 * b0; s21 += a2 * b1; s22 += a2 * b2; s23 += a2 * b3;
    s30 += a3 * b0; s31 += a3 * b1; s32 += a3 * b2; s33 += a3 * b3;
  }
  let y = i * m + j;
  ys[y] = s00; ys[y + 1] = s01; ys[y + 2] = s02; ys[y + 3] = s03; y += m;
  ys[y] = s10; ys[y + 1] = s11; ys[y + 2] = s12; ys[y + 3] = s13; y += m;
  ys[y] = s20; ys[y + 1] = s21; ys[y + 2] = s22; ys[y + 3] = s23; y += m;
  ys[y] = s30; ys[y + 1] = s31; ys[y + 2] = s32; ys[y + 3] = s33;
}

/** The gradient for x of y = x wᵀ: gradY w. Shapes gradY [n, m], w [m, k] -> [n, k]. */
export function linearBackwardInput(gradY: Matrix, w: Matrix): Matrix {
  const gradX = zeros(gradY.rows, w.cols);
  const k = w.cols;
  for (let i = 0; i < gradY.rows; i++) {
    for (let j = 0; j < w.rows; j++) {
      const g = gradY.data[i * gradY.cols + j];
      for (let l = 0; l < k; l++) gradX.data[i * k + l] += g * w.data[j * k + l];
    }
  }
  return gradX;
}

/** The gradient for w of y = x wᵀ: gradYᵀ x. Shapes gradY [n, m], x [n, k] -> [m, k]. */
export function linearBackwardWeight(gradY: Matrix, x: Matrix): Matrix {
  const gradW = zeros(gradY.cols, x.cols);
  const k = x.cols;
  for (let i = 0; i < gradY.rows; i++) {
    for (let j = 0; j < gradY.cols; j++) {
      const g = gradY.data[i * gradY.cols + j];
      for (let l = 0; l < k; l++) gradW.data[j * k + l] += g * x.data[i * k + l];
    }
  }
  return gradW;
}

/** The gradient for the bias: the sum of each column, added to `into`. Shapes gradY [n, m], into [m]. */
export function linearBackwardBias(gradY: Matrix, into: Floats): void {
  for (let i = 0; i < gradY.rows; i++) for (let j = 0; j < gradY.cols; j++) into[j] += gradY.data[i * gradY.cols + j];
}
