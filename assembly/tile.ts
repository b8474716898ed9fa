import { finishRow } from './finish';
import { accumulate, vectorBytes, weights } from './format';

/**
 * `rows` rows (1 to 6) of x against one panel of `vectors` vectors (2 or 4): s[i, j] = Σ x[i, l] w[j, l] + bias[j],
 * handed to `finish`.
 *
 * Order   each sum is one chain from 0 in order of the steps: its bits do not depend on the tile
 *
 * `format`, `vectors` and `rows` are constants where this is called, so that each call becomes a loop of its own with its
 * sums in registers. Weights come from far: from three rows on there is time to read a byte at `ahead`, `aheadStep` further
 * at each step, which calls it to the caches.
 */
// @ts-ignore: decorator
@inline
export function tile(
  format: i32, vectors: i32, rows: i32, finish: i32, xRows: usize, panel: usize, steps: i32,
  ahead: usize, aheadStep: usize, outRows: usize, column: usize, weightsPtr: usize,
): void {
  const wStep = vectors * vectorBytes(format), zero = i32x4.splat(0);
  let x0 = rowAt(xRows, 0), x1 = x0, x2 = x0, x3 = x0, x4 = x0, x5 = x0;
  if (rows > 1) x1 = rowAt(xRows, 1);
  if (rows > 2) x2 = rowAt(xRows, 2);
  if (rows > 3) x3 = rowAt(xRows, 3);
  if (rows > 4) x4 = rowAt(xRows, 4);
  if (rows > 5) x5 = rowAt(xRows, 5);
  let c00 = zero, c01 = zero, c02 = zero, c03 = zero, c10 = zero, c11 = zero, c12 = zero, c13 = zero;
  let c20 = zero, c21 = zero, c22 = zero, c23 = zero, c30 = zero, c31 = zero, c32 = zero, c33 = zero;
  let c40 = zero, c41 = zero, c42 = zero, c43 = zero, c50 = zero, c51 = zero, c52 = zero, c53 = zero;

  let w = panel;
  const end = w + <usize>(steps * wStep);
  do {
    const w0 = weights(format, w, 0), w1 = weights(format, w, 1);
    const w2 = vectors > 2 ? weights(format, w, 2) : w0, w3 = vectors > 2 ? weights(format, w, 3) : w1;
    let x = v128.load32_splat(x0); x0 += 4;
    c00 = accumulate(format, x, w0, c00); c01 = accumulate(format, x, w1, c01);
    if (vectors > 2) { c02 = accumulate(format, x, w2, c02); c03 = accumulate(format, x, w3, c03); }
    if (rows > 1) {
      x = v128.load32_splat(x1); x1 += 4;
      c10 = accumulate(format, x, w0, c10); c11 = accumulate(format, x, w1, c11);
      if (vectors > 2) { c12 = accumulate(format, x, w2, c12); c13 = accumulate(format, x, w3, c13); }
    }
    if (rows > 2) {
      x = v128.load32_splat(x2); x2 += 4;
      c20 = accumulate(format, x, w0, c20); c21 = accumulate(format, x, w1, c21);
      if (vectors > 2) { c22 = accumulate(format, x, w2, c22); c23 = accumulate(format, x, w3, c23); }
    }
    if (rows > 3) {
      x = v128.load32_splat(x3); x3 += 4;
      c30 = accumulate(format, x, w0, c30); c31 = accumulate(format, x, w1, c31);
      if (vectors > 2) { c32 = accumulate(format, x, w2, c32); c33 = accumulate(format, x, w3, c33); }
    }
    if (rows > 4) {
      x = v128.load32_splat(x4); x4 += 4;
      c40 = accumulate(format, x, w0, c40); c41 = accumulate(format, x, w1, c41);
      if (vectors > 2) { c42 = accumulate(format, x, w2, c42); c43 = accumulate(format, x, w3, c43); }
    }
    if (rows > 5) {
      x = v128.load32_splat(x5); x5 += 4;
      c50 = accumulate(format, x, w0, c50); c51 = accumulate(format, x, w1, c51);
      if (vectors > 2) { c52 = accumulate(format, x, w2, c52); c53 = accumulate(format, x, w3, c53); }
    }
    if (rows > 2) { load<u8>(ahead); ahead += aheadStep; }
    w += wStep;
  } while (w < end);

  finishRow(format, vectors, finish, c00, c01, c02, c03, w, x0, rowAt(outRows, 0) + column, weightsPtr);
  if (rows > 1) finishRow(format, vectors, finish, c10, c11, c12, c13, w, x1, rowAt(outRows, 1) + column, weightsPtr + 4);
  if (rows > 2) finishRow(format, vectors, finish, c20, c21, c22, c23, w, x2, rowAt(outRows, 2) + column, weightsPtr + 8);
  if (rows > 3) finishRow(format, vectors, finish, c30, c31, c32, c33, w, x3, rowAt(outRows, 3) + column, weightsPtr + 12);
  if (rows > 4) finishRow(format, vectors, finish, c40, c41, c42, c43, w, x4, rowAt(outRows, 4) + column, weightsPtr + 16);
  if (rows > 5) finishRow(format, vectors, finish, c50, c51, c52, c53, w, x5, rowAt(outRows, 5) + column, weightsPtr + 20);
}

/**
 * The same for one row against four panels, or two rows against two: few rows leave registers for more weights, and
 * several streams of them arrive faster than one.
 *
 * Of the four groups of sums, 0 and 2 are of the first row, and each is of the next panel; or with two rows, 1 and 3 are of
 * the second row, in the panel of the group before.
 */
// @ts-ignore: decorator
@inline
export function fewRows(
  format: i32, vectors: i32, rows: i32, finish: i32, xRows: usize, panel: usize, panelBytes: usize, steps: i32,
  outRows: usize, column: usize, weightsPtr: usize,
): void {
  const wStep = vectors * vectorBytes(format), zero = i32x4.splat(0);
  let x0 = rowAt(xRows, 0), x1 = x0;
  if (rows > 1) x1 = rowAt(xRows, 1);
  let p0 = panel, p1 = p0 + panelBytes, p2 = p1, p3 = p1;
  if (rows == 1) { p2 += panelBytes; p3 = p2 + panelBytes; }
  let c00 = zero, c01 = zero, c02 = zero, c03 = zero, c10 = zero, c11 = zero, c12 = zero, c13 = zero;
  let c20 = zero, c21 = zero, c22 = zero, c23 = zero, c30 = zero, c31 = zero, c32 = zero, c33 = zero;

  const end = p0 + <usize>(steps * wStep);
  do {
    const x = v128.load32_splat(x0);
    let y = x;
    if (rows > 1) { y = v128.load32_splat(x1); x1 += 4; }
    let w0 = weights(format, p0, 0), w1 = weights(format, p0, 1);
    let w2 = vectors > 2 ? weights(format, p0, 2) : w0, w3 = vectors > 2 ? weights(format, p0, 3) : w1;
    c00 = accumulate(format, x, w0, c00); c01 = accumulate(format, x, w1, c01);
    if (vectors > 2) { c02 = accumulate(format, x, w2, c02); c03 = accumulate(format, x, w3, c03); }
    if (rows == 1) {
      w0 = weights(format, p1, 0); w1 = weights(format, p1, 1);
      if (vectors > 2) { w2 = weights(format, p1, 2); w3 = weights(format, p1, 3); }
      p1 += wStep;
    }
    c10 = accumulate(format, y, w0, c10); c11 = accumulate(format, y, w1, c11);
    if (vectors > 2) { c12 = accumulate(format, y, w2, c12); c13 = accumulate(format, y, w3, c13); }
    w0 = weights(format, p2, 0); w1 = weights(format, p2, 1);
    if (vectors > 2) { w2 = weights(format, p2, 2); w3 = weights(format, p2, 3); }
    c20 = accumulate(format, x, w0, c20); c21 = accumulate(format, x, w1, c21);
    if (vectors > 2) { c22 = accumulate(format, x, w2, c22); c23 = accumulate(format, x, w3, c23); }
    if (rows == 1) {
      w0 = weights(format, p3, 0); w1 = weights(format, p3, 1);
      if (vectors > 2) { w2 = weights(format, p3, 2); w3 = weights(format, p3, 3); }
      p3 += wStep;
    }
    c30 = accumulate(format, y, w0, c30); c31 = accumulate(format, y, w1, c31);
    if (vectors > 2) { c32 = accumulate(format, y, w2, c32); c33 = accumulate(format, y, w3, c33); }
    x0 += 4;
    p0 += wStep;
    p2 += wStep;
  } while (p0 < end);

  const out0 = rowAt(outRows, 0) + column, outStep = vectors * 16;
  finishRow(format, vectors, finish, c00, c01, c02, c03, p0, x0, out0, weightsPtr);
  if (rows > 1) {
    const out1 = rowAt(outRows, 1) + column;
    finishRow(format, vectors, finish, c10, c11, c12, c13, p0, x1, out1, weightsPtr + 4);
    finishRow(format, vectors, finish, c20, c21, c22, c23, p2, x0, out0 + outStep, weightsPtr);
    finishRow(format, vectors, finish, c30, c31, c32, c33, p2, x1, out1 + outStep, weightsPtr + 4);
  } else {
    finishRow(format, vectors, finish, c10, c11, c12, c13, p1, x0, out0 + outStep, weightsPtr);
    finishRow(format, vectors, finish, c20, c21, c22, c23, p2, x0, out0 + 2 * outStep, weightsPtr);
    finishRow(format, vectors, finish, c30, c31, c32, c33, p3, x0, out0 + 3 * outStep, weightsPtr);
  }
}

/** The address of row i, from a list of them. */
// @ts-ignore: decorator
@inline
function rowAt(rows: usize, i: i32): usize {
  return <usize>load<u32>(rows + (<usize>i << 2));
}
