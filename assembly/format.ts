import { madd } from './vector';

/**
 * How weights are stored in a panel, and what a step of the inner loop is. Whatever the format, a step takes 4 bytes of
 * every row of x, and from the panel as many bytes for each of its outputs as are said here.
 */
export namespace Format {
  /** 4 bytes: a weight. The row holds a float32. */
  export const F32: i32 = 0;
}

/** The bytes of four outputs in one step. */
// @ts-ignore: decorator
@inline
export function vectorBytes(format: i32): i32 {
  return 16;
}

/** The bytes of four outputs after the last step. */
// @ts-ignore: decorator
@inline
export function trailerBytes(format: i32): i32 {
  return 16;
}

/** Four outputs of a step: the i-th vector at w, i a constant. */
// @ts-ignore: decorator
@inline
export function weights(format: i32, w: usize, i: i32): v128 {
  return vectorAt(w, i);
}

/** c + x w, lane by lane: x holds the 4 bytes of a row's step in every lane. */
// @ts-ignore: decorator
@inline
export function accumulate(format: i32, x: v128, w: v128, c: v128): v128 {
  return madd(x, w, c);
}

/** The finished sums of four outputs, the i-th of a panel: `trailer` is what follows its weights, `rowEnd` what follows a row of x. */
// @ts-ignore: decorator
@inline
export function finished(format: i32, c: v128, i: i32, trailer: usize, rowEnd: usize): v128 {
  return f32x4.add(c, vectorAt(trailer, i));
}

/** The i-th vector at ptr. An offset in the instruction has to be a literal. */
// @ts-ignore: decorator
@inline
export function vectorAt(ptr: usize, i: i32): v128 {
  if (i == 0) return v128.load(ptr);
  if (i == 1) return v128.load(ptr, 16);
  if (i == 2) return v128.load(ptr, 32);
  return v128.load(ptr, 48);
}
