/** relu alone, until the others are here. */
// @ts-ignore: decorator
@inline
export function activate(h: v128, activation: i32): v128 {
  return f32x4.pmax(h, f32x4.splat(0));
}
