import { finished, firstHelp, mac, secondHelp, vectorBytes, weightsAt } from './format';

/**
 * `rows` rows (1 to 6) of x against one panel of `vectors` vectors (2 or 4): out[i, j] = Σ x[i, l] w[j, l] + bias[j].
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
  format: i32, vectors: i32, rows: i32, xRows: usize, panel: usize, steps: i32,
  ahead: usize, aheadStep: usize, outRows: usize, column: usize,
): void {
  const wStep = vectors * vectorBytes(format), zero = i32x4.splat(0), help = firstHelp(format, steps), power = secondHelp(steps);
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
    const w0 = weightsAt(format, w, 0, help, power), w1 = weightsAt(format, w, 1, help, power);
    const w2 = vectors > 2 ? weightsAt(format, w, 2, help, power) : w0, w3 = vectors > 2 ? weightsAt(format, w, 3, help, power) : w1;
    let x = v128.load32_splat(x0); x0 += 4;
    c00 = mac(format, x, w0, c00, help); c01 = mac(format, x, w1, c01, help);
    if (vectors > 2) { c02 = mac(format, x, w2, c02, help); c03 = mac(format, x, w3, c03, help); }
    if (rows > 1) {
      x = v128.load32_splat(x1); x1 += 4;
      c10 = mac(format, x, w0, c10, help); c11 = mac(format, x, w1, c11, help);
      if (vectors > 2) { c12 = mac(format, x, w2, c12, help); c13 = mac(format, x, w3, c13, help); }
    }
    if (rows > 2) {
      x = v128.load32_splat(x2); x2 += 4;
      c20 = mac(format, x, w0, c20, help); c21 = mac(format, x, w1, c21, help);
      if (vectors > 2) { c22 = mac(format, x, w2, c22, help); c23 = mac(format, x, w3, c23, help); }
    }
    // Never, but no compiler knows. V8 before Node 24 loads all that a block needs at its start: five rows need two.
    if (rows == 5 && vectors == 2 && !w) break;
    if (rows > 3) {
      x = v128.load32_splat(x3); x3 += 4;
      c30 = mac(format, x, w0, c30, help); c31 = mac(format, x, w1, c31, help);
      if (vectors > 2) { c32 = mac(format, x, w2, c32, help); c33 = mac(format, x, w3, c33, help); }
    }
    if (rows > 4) {
      x = v128.load32_splat(x4); x4 += 4;
      c40 = mac(format, x, w0, c40, help); c41 = mac(format, x, w1, c41, help);
      if (vectors > 2) { c42 = mac(format, x, w2, c42, help); c43 = mac(format, x, w3, c43, help); }
    }
    if (rows > 5) {
      x = v128.load32_splat(x5); x5 += 4;
      c50 = mac(format, x, w0, c50, help); c51 = mac(format, x, w1, c51, help);
      if (vectors > 2) { c52 = mac(format, x, w2, c52, help); c53 = mac(format, x, w3, c53, help); }
    }
    if (rows > 2) { load<u8>(ahead); ahead += aheadStep; }
    w += wStep;
  } while (w < end);

  storeRow(format, vectors, c00, c01, c02, c03, w, x0, rowAt(outRows, 0) + column);
  if (rows > 1) storeRow(format, vectors, c10, c11, c12, c13, w, x1, rowAt(outRows, 1) + column);
  if (rows > 2) storeRow(format, vectors, c20, c21, c22, c23, w, x2, rowAt(outRows, 2) + column);
  if (rows > 3) storeRow(format, vectors, c30, c31, c32, c33, w, x3, rowAt(outRows, 3) + column);
  if (rows > 4) storeRow(format, vectors, c40, c41, c42, c43, w, x4, rowAt(outRows, 4) + column);
  if (rows > 5) storeRow(format, vectors, c50, c51, c52, c53, w, x5, rowAt(outRows, 5) + column);
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
  format: i32, vectors: i32, rows: i32, xRows: usize, panel: usize, panelBytes: usize, steps: i32,
  outRows: usize, column: usize,
): void {
  const wStep = vectors * vectorBytes(format), zero = i32x4.splat(0), help = firstHelp(format, steps), power = secondHelp(steps);
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
    let w0 = weightsAt(format, p0, 0, help, power), w1 = weightsAt(format, p0, 1, help, power);
    let w2 = vectors > 2 ? weightsAt(format, p0, 2, help, power) : w0, w3 = vectors > 2 ? weightsAt(format, p0, 3, help, power) : w1;
    c00 = mac(format, x, w0, c00, help); c01 = mac(format, x, w1, c01, help);
    if (vectors > 2) { c02 = mac(format, x, w2, c02, help); c03 = mac(format, x, w3, c03, help); }
    if (rows == 1) {
      w0 = weightsAt(format, p1, 0, help, power); w1 = weightsAt(format, p1, 1, help, power);
      if (vectors > 2) { w2 = weightsAt(format, p1, 2, help, power); w3 = weightsAt(format, p1, 3, help, power); }
      p1 += wStep;
    }
    c10 = mac(format, y, w0, c10, help); c11 = mac(format, y, w1, c11, help);
    if (vectors > 2) { c12 = mac(format, y, w2, c12, help); c13 = mac(format, y, w3, c13, help); }
    w0 = weightsAt(format, p2, 0, help, power); w1 = weightsAt(format, p2, 1, help, power);
    if (vectors > 2) { w2 = weightsAt(format, p2, 2, help, power); w3 = weightsAt(format, p2, 3, help, power); }
    c20 = mac(format, x, w0, c20, help); c21 = mac(format, x, w1, c21, help);
    if (vectors > 2) { c22 = mac(format, x, w2, c22, help); c23 = mac(format, x, w3, c23, help); }
    if (rows == 1) {
      w0 = weightsAt(format, p3, 0, help, power); w1 = weightsAt(format, p3, 1, help, power);
      if (vectors > 2) { w2 = weightsAt(format, p3, 2, help, power); w3 = weightsAt(format, p3, 3, help, power); }
      p3 += wStep;
    }
    c30 = mac(format, y, w0, c30, help); c31 = mac(format, y, w1, c31, help);
    if (vectors > 2) { c32 = mac(format, y, w2, c32, help); c33 = mac(format, y, w3, c33, help); }
    x0 += 4;
    p0 += wStep;
    p2 += wStep;
  } while (p0 < end);

  const out0 = rowAt(outRows, 0) + column, outStep = vectors * 16;
  storeRow(format, vectors, c00, c01, c02, c03, p0, x0, out0);
  if (rows > 1) {
    const out1 = rowAt(outRows, 1) + column;
    storeRow(format, vectors, c10, c11, c12, c13, p0, x1, out1);
    storeRow(format, vectors, c20, c21, c22, c23, p2, x0, out0 + outStep);
    storeRow(format, vectors, c30, c31, c32, c33, p2, x1, out1 + outStep);
  } else {
    storeRow(format, vectors, c10, c11, c12, c13, p1, x0, out0 + outStep);
    storeRow(format, vectors, c20, c21, c22, c23, p2, x0, out0 + 2 * outStep);
    storeRow(format, vectors, c30, c31, c32, c33, p3, x0, out0 + 3 * outStep);
  }
}

/** The stores go from last to first: so two of them side by side can become one of 256 bits. */
// @ts-ignore: decorator
@inline
function storeRow(
  format: i32, vectors: i32, c0: v128, c1: v128, c2: v128, c3: v128, trailer: usize, rowEnd: usize, out: usize,
): void {
  const s0 = finished(format, vectors, c0, 0, trailer, rowEnd), s1 = finished(format, vectors, c1, 1, trailer, rowEnd);
  if (vectors > 2) {
    const s2 = finished(format, vectors, c2, 2, trailer, rowEnd), s3 = finished(format, vectors, c3, 3, trailer, rowEnd);
    v128.store(out, s3, 48);
    v128.store(out, s2, 32);
  }
  v128.store(out, s1, 16);
  v128.store(out, s0);
}

/** The address of row i, from a list of them. */
// @ts-ignore: decorator
@inline
function rowAt(rows: usize, i: i32): usize {
  return <usize>load<u32>(rows + (<usize>i << 2));
}
