/** a * b + c, rounded twice in target simd; rounded once in target relaxed where the machine has a fused instruction. */
// @ts-ignore: decorator
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c);
}

/** The last two of four floats, in the place of the first two. */
// @ts-ignore: decorator
@inline
export function highHalf(v: v128): v128 {
  return v128.shuffle<f32>(v, v, 2, 3, 2, 3);
}

/** Of two float64s. */
// @ts-ignore: decorator
@inline
export function sumOfPair(v: v128): f64 {
  return f64x2.extract_lane(v, 0) + f64x2.extract_lane(v, 1);
}
