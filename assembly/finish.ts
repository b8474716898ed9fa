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

/** Finish the two vectors of a row in a panel, c + b, at the address `out`. The row's weight is read where it is needed. */
// @ts-ignore: decorator
@inline
export function finishRow(finish: i32, c0: v128, c1: v128, b0: v128, b1: v128, out: usize, weightPtr: usize): void {
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

/** The address of row i: in a matrix with that stride in bytes, or from a list of addresses if the stride is 0. */
// @ts-ignore: decorator
@inline
export function row(ptr: usize, stride: usize, i: i32): usize {
  return stride ? ptr + <usize>i * stride : <usize>load<u32>(ptr + (<usize>i << 2));
}
