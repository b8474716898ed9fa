import { finished, vectorAt } from './format';
import { madd } from './vector';

/** What becomes of a finished sum s. */
export namespace Finish {
  /** out = s */
  export const STORE: i32 = 0;
  /** out = out * s */
  export const MULTIPLY: i32 = 1;
  /** out = out + weight * s */
  export const ADD_WEIGHTED: i32 = 2;
}

/**
 * Finish a row's sums in a panel of two vectors, or four (a constant), at the address `out`.
 *
 * All loads come before the stores, and the stores last to first: two of them side by side can become one of 256 bits.
 */
// @ts-ignore: decorator
@inline
export function finishRow(
  format: i32, vectors: i32, finish: i32, c0: v128, c1: v128, c2: v128, c3: v128,
  trailer: usize, rowEnd: usize, out: usize, weightPtr: usize,
): void {
  const s0 = finished(format, c0, 0, trailer, rowEnd), s1 = finished(format, c1, 1, trailer, rowEnd);
  const s2 = vectors > 2 ? finished(format, c2, 2, trailer, rowEnd) : c2;
  const s3 = vectors > 2 ? finished(format, c3, 3, trailer, rowEnd) : c3;
  if (finish == Finish.STORE) {
    storeRow(vectors, out, s0, s1, s2, s3);
  } else if (finish == Finish.MULTIPLY) {
    const y0 = vectorAt(out, 0), y1 = vectorAt(out, 1);
    const y2 = vectors > 2 ? vectorAt(out, 2) : y0, y3 = vectors > 2 ? vectorAt(out, 3) : y1;
    storeRow(vectors, out, f32x4.mul(y0, s0), f32x4.mul(y1, s1), f32x4.mul(y2, s2), f32x4.mul(y3, s3));
  } else {
    const weight = v128.load32_splat(weightPtr);
    const y0 = vectorAt(out, 0), y1 = vectorAt(out, 1);
    const y2 = vectors > 2 ? vectorAt(out, 2) : y0, y3 = vectors > 2 ? vectorAt(out, 3) : y1;
    storeRow(vectors, out, madd(weight, s0, y0), madd(weight, s1, y1), madd(weight, s2, y2), madd(weight, s3, y3));
  }
}

// @ts-ignore: decorator
@inline
function storeRow(vectors: i32, out: usize, s0: v128, s1: v128, s2: v128, s3: v128): void {
  if (vectors > 2) {
    v128.store(out, s3, 48);
    v128.store(out, s2, 32);
  }
  v128.store(out, s1, 16);
  v128.store(out, s0);
}
