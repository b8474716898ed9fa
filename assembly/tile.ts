/** Lanes of a panel: the outputs that one step of the inner loop works on, in vectors of four. */
export const panelWidth: i32 = 8;

/** The most rows that share the loads of a panel: as many as the registers hold. */
export const tileRows: i32 = 4;

/** What becomes of a tile's finished sums s. */
export namespace Finish {
  /** out = s */
  export const STORE: i32 = 0;
  /** out = out * s */
  export const MULTIPLY: i32 = 1;
  /** out = out + weight * s */
  export const ADD_WEIGHTED: i32 = 2;
}

/**
 * One tile: `rows` rows of x against one panel of w, s[i, j] = Σ x[i, l] w[j, l] + bias[j], and its finish.
 *
 * Order   s[i, j] is one chain of sums from 0 in order of l, then the bias, whatever `rows`; so its bits are the same
 *         in every tile
 * Units   xPtr: the first row where xStride > 0, rows xStride bytes apart; else a list of row addresses (u32). The same
 *         for outPtr and outStride, to whose rows `column` bytes are added
 *
 * `rows`, `finish` and a stride of 0 are constants where this is called: each call becomes a loop of its own, with its
 * sums in registers.
 */
// @ts-ignore: decorator
@inline
export function tile(
  rows: i32, finish: i32, xPtr: usize, xStride: usize, k: i32, panelPtr: usize, biasPtr: usize,
  outPtr: usize, outStride: usize, column: usize, weightsPtr: usize,
): void {
  let x0 = row(xPtr, xStride, 0), x1 = x0, x2 = x0, x3 = x0, x4 = x0, x5 = x0;
  if (rows > 1) x1 = row(xPtr, xStride, 1);
  if (rows > 2) x2 = row(xPtr, xStride, 2);
  if (rows > 3) x3 = row(xPtr, xStride, 3);
  if (rows > 4) x4 = row(xPtr, xStride, 4);
  if (rows > 5) x5 = row(xPtr, xStride, 5);
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
  let c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;

  let w = panelPtr;
  const end = panelPtr + <usize>k * (panelWidth * 4);
  do {
    const w0 = v128.load(w), w1 = v128.load(w, 16);
    let x = v128.load32_splat(x0); c00 = madd(x, w0, c00); c01 = madd(x, w1, c01); x0 += 4;
    if (rows > 1) { x = v128.load32_splat(x1); c10 = madd(x, w0, c10); c11 = madd(x, w1, c11); x1 += 4; }
    if (rows > 2) { x = v128.load32_splat(x2); c20 = madd(x, w0, c20); c21 = madd(x, w1, c21); x2 += 4; }
    if (rows > 3) { x = v128.load32_splat(x3); c30 = madd(x, w0, c30); c31 = madd(x, w1, c31); x3 += 4; }
    if (rows > 4) { x = v128.load32_splat(x4); c40 = madd(x, w0, c40); c41 = madd(x, w1, c41); x4 += 4; }
    if (rows > 5) { x = v128.load32_splat(x5); c50 = madd(x, w0, c50); c51 = madd(x, w1, c51); x5 += 4; }
    w += panelWidth * 4;
  } while (w < end);

  const b0 = v128.load(biasPtr), b1 = v128.load(biasPtr, 16);
  finishRow(finish, c00, c01, b0, b1, row(outPtr, outStride, 0) + column, weightsPtr);
  if (rows > 1) finishRow(finish, c10, c11, b0, b1, row(outPtr, outStride, 1) + column, weightsPtr + 4);
  if (rows > 2) finishRow(finish, c20, c21, b0, b1, row(outPtr, outStride, 2) + column, weightsPtr + 8);
  if (rows > 3) finishRow(finish, c30, c31, b0, b1, row(outPtr, outStride, 3) + column, weightsPtr + 12);
  if (rows > 4) finishRow(finish, c40, c41, b0, b1, row(outPtr, outStride, 4) + column, weightsPtr + 16);
  if (rows > 5) finishRow(finish, c50, c51, b0, b1, row(outPtr, outStride, 5) + column, weightsPtr + 20);
}

/** The address of row i: in a matrix with that stride in bytes, or from a list of addresses if the stride is 0. */
// @ts-ignore: decorator
@inline
export function row(ptr: usize, stride: usize, i: i32): usize {
  return stride ? ptr + <usize>i * stride : <usize>load<u32>(ptr + (<usize>i << 2));
}

// @ts-ignore: decorator
@inline
function finishRow(finish: i32, c0: v128, c1: v128, b0: v128, b1: v128, out: usize, weightPtr: usize): void {
  let s0 = f32x4.add(c0, b0), s1 = f32x4.add(c1, b1);
  if (finish == Finish.MULTIPLY) {
    s0 = f32x4.mul(v128.load(out), s0);
    s1 = f32x4.mul(v128.load(out, 16), s1);
  }
  if (finish == Finish.ADD_WEIGHTED) {
    const weight = v128.load32_splat(weightPtr);
    s0 = madd(weight, s0, v128.load(out));
    s1 = madd(weight, s1, v128.load(out, 16));
  }
  v128.store(out, s1, 16);
  v128.store(out, s0);
}

/** a * b + c, rounded twice in target simd; rounded once in target relaxed where the machine has a fused instruction. */
// @ts-ignore: decorator
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c);
}
