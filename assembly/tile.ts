import { finishRow, row } from './finish';
import { madd } from './vector';

/** The outputs of a panel of packed weights: two vectors of four. */
export const panelWidth: i32 = 8;

/**
 * `rows` rows (1 to 6) of x against one panel: s[i, j] = Σ x[i, l] w[j, l] + bias[j], handed to `finish`.
 *
 * Units   bytes, but for k. xPtr: the first row if xStride > 0, with rows so far apart; else a list of row addresses
 *         (u32). outPtr and outStride likewise, and `column` is added to each row's address
 * Order   each sum is one chain from 0 in order of l, then the bias: its bits do not depend on the tile
 *
 * `rows`, `finish` and a stride of 0 are constants where this is called, so that each call becomes a loop of its own with
 * its sums in registers: 2 rows + 2 of weights + 1 of x. Weights come from far: from four rows on there is time to read a
 * byte at aheadPtr, aheadStep further at each step, which calls it to the caches.
 */
// @ts-ignore: decorator
@inline
export function tile(
  rows: i32, finish: i32, xPtr: usize, xStride: usize, k: i32, panelPtr: usize, aheadPtr: usize, aheadStep: usize,
  biasPtr: usize, outPtr: usize, outStride: usize, column: usize, weightsPtr: usize,
): void {
  let x0 = row(xPtr, xStride, 0), x1 = x0, x2 = x0, x3 = x0, x4 = x0, x5 = x0;
  if (rows > 1) x1 = row(xPtr, xStride, 1);
  if (rows > 2) x2 = row(xPtr, xStride, 2);
  if (rows > 3) x3 = row(xPtr, xStride, 3);
  if (rows > 4) x4 = row(xPtr, xStride, 4);
  if (rows > 5) x5 = row(xPtr, xStride, 5);
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
  let c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;

  let w = panelPtr, ahead = aheadPtr;
  const end = w + <usize>(k * panelWidth << 2);
  do {
    const w0 = v128.load(w), w1 = v128.load(w, 16);
    let x = v128.load32_splat(x0); c00 = madd(x, w0, c00); c01 = madd(x, w1, c01); x0 += 4;
    if (rows > 1) { x = v128.load32_splat(x1); c10 = madd(x, w0, c10); c11 = madd(x, w1, c11); x1 += 4; }
    if (rows > 2) { x = v128.load32_splat(x2); c20 = madd(x, w0, c20); c21 = madd(x, w1, c21); x2 += 4; }
    if (rows > 3) { x = v128.load32_splat(x3); c30 = madd(x, w0, c30); c31 = madd(x, w1, c31); x3 += 4; }
    if (rows > 4) { x = v128.load32_splat(x4); c40 = madd(x, w0, c40); c41 = madd(x, w1, c41); x4 += 4; }
    if (rows > 5) { x = v128.load32_splat(x5); c50 = madd(x, w0, c50); c51 = madd(x, w1, c51); x5 += 4; }
    if (rows > 3) { load<u8>(ahead); ahead += aheadStep; }
    w += panelWidth << 2;
  } while (w < end);

  const b0 = v128.load(biasPtr), b1 = v128.load(biasPtr, 16);
  finishRow(finish, c00, c01, b0, b1, row(outPtr, outStride, 0) + column, weightsPtr);
  if (rows > 1) finishRow(finish, c10, c11, b0, b1, row(outPtr, outStride, 1) + column, weightsPtr + 4);
  if (rows > 2) finishRow(finish, c20, c21, b0, b1, row(outPtr, outStride, 2) + column, weightsPtr + 8);
  if (rows > 3) finishRow(finish, c30, c31, b0, b1, row(outPtr, outStride, 3) + column, weightsPtr + 12);
  if (rows > 4) finishRow(finish, c40, c41, b0, b1, row(outPtr, outStride, 4) + column, weightsPtr + 16);
  if (rows > 5) finishRow(finish, c50, c51, b0, b1, row(outPtr, outStride, 5) + column, weightsPtr + 20);
}

/**
 * The same for one row against four panels, or two rows against two: few rows leave registers for more weights, and
 * several streams of them arrive faster than one.
 *
 * Of the four pairs of sums, 0 and 2 are of the first row, and each pair is of the next panel; or with two rows, 1 and 3
 * are of the second row, in the panel of the pair before.
 */
// @ts-ignore: decorator
@inline
export function wideTile(
  rows: i32, finish: i32, xPtr: usize, xStride: usize, k: i32, panelPtr: usize, biasPtr: usize,
  outPtr: usize, outStride: usize, column: usize, weightsPtr: usize,
): void {
  const panelBytes = <usize>(k * panelWidth << 2);
  let x0 = row(xPtr, xStride, 0), x1 = x0;
  if (rows > 1) x1 = row(xPtr, xStride, 1);
  let p0 = panelPtr, p1 = p0 + panelBytes, p2 = p1, p3 = p1;
  if (rows == 1) { p2 += panelBytes; p3 = p2 + panelBytes; }
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;

  const end = p1;
  do {
    const x = v128.load32_splat(x0);
    let y = x;
    if (rows > 1) { y = v128.load32_splat(x1); x1 += 4; }
    let w0 = v128.load(p0), w1 = v128.load(p0, 16); c00 = madd(x, w0, c00); c01 = madd(x, w1, c01);
    if (rows == 1) { w0 = v128.load(p1); w1 = v128.load(p1, 16); p1 += panelWidth << 2; }
    c10 = madd(y, w0, c10); c11 = madd(y, w1, c11);
    w0 = v128.load(p2); w1 = v128.load(p2, 16); c20 = madd(x, w0, c20); c21 = madd(x, w1, c21);
    if (rows == 1) { w0 = v128.load(p3); w1 = v128.load(p3, 16); p3 += panelWidth << 2; }
    c30 = madd(y, w0, c30); c31 = madd(y, w1, c31);
    x0 += 4;
    p0 += panelWidth << 2;
    p2 += panelWidth << 2;
  } while (p0 < end);

  const out0 = row(outPtr, outStride, 0) + column;
  let b0 = v128.load(biasPtr), b1 = v128.load(biasPtr, 16);
  finishRow(finish, c00, c01, b0, b1, out0, weightsPtr);
  if (rows > 1) {
    const out1 = row(outPtr, outStride, 1) + column;
    finishRow(finish, c10, c11, b0, b1, out1, weightsPtr + 4);
    b0 = v128.load(biasPtr, 32); b1 = v128.load(biasPtr, 48);
    finishRow(finish, c20, c21, b0, b1, out0 + 32, weightsPtr);
    finishRow(finish, c30, c31, b0, b1, out1 + 32, weightsPtr + 4);
  } else {
    b0 = v128.load(biasPtr, 32); b1 = v128.load(biasPtr, 48);
    finishRow(finish, c10, c11, b0, b1, out0 + 32, weightsPtr);
    b0 = v128.load(biasPtr, 64); b1 = v128.load(biasPtr, 80);
    finishRow(finish, c20, c21, b0, b1, out0 + 64, weightsPtr);
    b0 = v128.load(biasPtr, 96); b1 = v128.load(biasPtr, 112);
    finishRow(finish, c30, c31, b0, b1, out0 + 96, weightsPtr);
  }
}
