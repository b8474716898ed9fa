import { madd } from './vector';

/**
 * How weights are stored in a panel, and what a step of the inner loop is. Whatever the format, a step takes 4 bytes from
 * each row of x; from the panel it takes the bytes of a vector of four outputs that `vectorBytes` says.
 *
 * F32, F16, BF16   one input a step: rows of x are float32, weights float32, float16 or the upper half of a float32.
 *                  Halves become float32 exactly, so they give the bits of F32 over the same weights
 * INT8             rows of x are codes of quantize.ts, weights int8; in target relaxed four inputs a step, codes of 8
 *                  bits; in target simd two, codes of 16. Sums are int32, exact, up to 133,000 inputs
 * INT8_DOT         the same; in target relaxed by an instruction that takes the place of three. Where a machine has no
 *                  such instruction (AVX-VNNI), V8 makes it of five
 *
 * After its last step a panel has, for each output, the bias in float32. With INT8 then its scale in float32, and the
 * sum of its weights in int32.
 */
export namespace Format {
  export const F32: i32 = 0;
  export const F16: i32 = 1;
  export const BF16: i32 = 2;
  export const INT8: i32 = 3;
  export const INT8_DOT: i32 = 4;
}

/** Whether there are products of 8 bits. */
const HAS_DOT8: bool = ASC_FEATURE_RELAXED_SIMD;

// @ts-ignore: decorator
@inline
export function isHalf(format: i32): bool {
  return format == Format.F16 || format == Format.BF16;
}

// @ts-ignore: decorator
@inline
function isInt8(format: i32): bool {
  return format >= Format.INT8;
}

/** The bytes of four outputs in one step. */
// @ts-ignore: decorator
@inline
export function vectorBytes(format: i32): i32 {
  return format == Format.F32 || (isInt8(format) && HAS_DOT8) ? 16 : 8;
}

/** The bytes of four outputs after the last step. */
// @ts-ignore: decorator
@inline
export function trailerBytes(format: i32): i32 {
  return isInt8(format) ? 48 : 16;
}

/**
 * What the steps of a format need besides: a mask for float16, ones for int8. Made before a loop, it stays in a register.
 *
 * Engines make a constant vector anew wherever it is used, so these are constants to no compiler: `steps` is not negative.
 */
// @ts-ignore: decorator
@inline
export function helpOf(format: i32, steps: i32): v128 {
  if (isInt8(format)) return i16x8.splat(<i16>(1 ^ (steps >> 31)));
  return i32x4.splat(0x8fffe000 ^ (steps >> 31));
}

/** 2^112 in float32, for float16. */
// @ts-ignore: decorator
@inline
export function powerOf(steps: i32): v128 {
  return i32x4.splat(((112 + 127) << 23) ^ (steps >> 31));
}

/** What `mac` multiplies by in a step at w: the i-th four outputs of a panel. */
// @ts-ignore: decorator
@inline
export function weightsAt(format: i32, w: usize, i: i32, help: v128, power: v128): v128 {
  if (vectorBytes(format) == 16) return vectorAt(w, i);
  if (isInt8(format)) {
    if (i == 0) return v128.load8x8_s(w);
    if (i == 1) return v128.load8x8_s(w, 8);
    if (i == 2) return v128.load8x8_s(w, 16);
    return v128.load8x8_s(w, 24);
  }
  let half: v128;
  if (i == 0) half = v128.load16x4_s(w);
  else if (i == 1) half = v128.load16x4_s(w, 8);
  else if (i == 2) half = v128.load16x4_s(w, 16);
  else half = v128.load16x4_s(w, 24);
  if (format == Format.BF16) return i32x4.shl(half, 16);
  // Sign, exponent and fraction move to where a float32 has them. Its exponent is biased by 127 and not by 15, so the
  // number is 2^112 times too small; the product is exact, also of the smallest numbers.
  return f32x4.mul(v128.and(i32x4.shl(half, 13), help), power);
}

/** c + x w in each lane: x holds the 4 bytes of a row's step in every lane. */
// @ts-ignore: decorator
@inline
export function mac(format: i32, x: v128, w: v128, c: v128, help: v128): v128 {
  if (!isInt8(format)) return madd(x, w, c);
  if (!HAS_DOT8) return i32x4.add(c, i32x4.dot_i16x8_s(w, x));
  if (format == Format.INT8_DOT) return i32x4.relaxed_dot_i8x16_i7x16_add_s(w, x, c);
  return i32x4.add(c, i32x4.dot_i16x8_s(i16x8.relaxed_dot_i8x16_i7x16_s(w, x), help));
}

/**
 * A panel of `vectors` vectors in a half format to one in float32, its biases too.
 *
 * @returns where panel 0 would be, if what is written to `scratch` were a panel of that number among others in float32
 */
// @ts-ignore: decorator
@inline
export function widenPanel(
  format: i32, vectors: i32, panelsPtr: usize, panel: i32, steps: i32, scratch: usize,
): usize {
  const help = helpOf(format, steps), power = powerOf(steps), biasBytes = vectors << 4;
  let w = panelsPtr + <usize>panel * <usize>(steps * (vectors << 3) + biasBytes), to = scratch;
  for (const end = w + <usize>(steps * (vectors << 3)); w < end; w += 16, to += 32) {
    const w0 = weightsAt(format, w, 0, help, power), w1 = weightsAt(format, w, 1, help, power);
    v128.store(to, w1, 16);
    v128.store(to, w0);
  }
  memory.copy(to, w, biasBytes);
  return scratch - <usize>panel * <usize>(steps * biasBytes + biasBytes);
}

/**
 * The i-th four sums of a row in a panel with their bias. `biases`, `scales` and `sums` are the parts of the panel's trailer;
 * rowEnd is where the row's steps end, and its scale and zero point are (INT8).
 *
 * Maths   (Σ (q - zero) v) · scale of the row · scale of the output + bias, each product and sum rounded, none fused
 */
// @ts-ignore: decorator
@inline
export function finished(format: i32, c: v128, i: i32, biases: usize, scales: usize, sums: usize, rowEnd: usize): v128 {
  const bias = vectorAt(biases, i);
  if (!isInt8(format)) return f32x4.add(c, bias);
  const exact = i32x4.sub(c, i32x4.mul(v128.load32_splat(rowEnd, 4), vectorAt(sums, i)));
  const ofRow = f32x4.mul(f32x4.convert_i32x4_s(exact), v128.load32_splat(rowEnd));
  return f32x4.add(f32x4.mul(ofRow, vectorAt(scales, i)), bias);
}

/** The i-th vector at ptr. The offset in an instruction has to be a literal. */
// @ts-ignore: decorator
@inline
export function vectorAt(ptr: usize, i: i32): v128 {
  if (i == 0) return v128.load(ptr);
  if (i == 1) return v128.load(ptr, 16);
  if (i == 2) return v128.load(ptr, 32);
  return v128.load(ptr, 48);
}
