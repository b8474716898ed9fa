/**
 * Rows of float32 -> rows of codes 0 … 127, as src/quantize.ts defines them: x ≈ scale · (code - zero).
 *
 * Shapes  numRows rows of k floats, xStride floats apart -> as many rows of codes, one behind the other
 * Units   codes of 8 bits in target relaxed, of 16 in target simd; zeros to a whole step of 4 bytes; then the row's scale
 *         (float32) and zero point (int32)
 * Order   the smallest and largest of a row are the same in any order; all else is element by element, none of it fused
 */
export function quantize_i7(xPtr: usize, xStride: i32, numRows: i32, k: i32, codesPtr: usize): void {
  for (let i = 0; i < numRows; i++, xPtr += <usize>xStride << 2) {
    const eightsEnd = xPtr + (<usize>(k & ~7) << 2), end = xPtr + (<usize>k << 2);
    let low = f32x4.splat(0), high = low, x = xPtr;
    for (; x < eightsEnd; x += 32) {
      const x0 = v128.load(x), x1 = v128.load(x, 16);
      low = f32x4.pmin(f32x4.pmin(low, x0), x1);
      high = f32x4.pmax(f32x4.pmax(high, x0), x1);
    }
    for (; x < end; x += 4) {
      const x0 = v128.load32_zero(x);
      low = f32x4.pmin(low, x0);
      high = f32x4.pmax(high, x0);
    }
    const smallest = min(min(lane(low, 0), lane(low, 1)), min(lane(low, 2), lane(low, 3)));
    const largest = max(max(lane(high, 0), lane(high, 1)), max(lane(high, 2), lane(high, 3)));
    const scale = max(largest / 127 - smallest / 127, SMALLEST_SCALE), perUnit: f32 = 1 / scale;
    const zero = i32x4.extract_lane(rounded(f32x4.splat(-smallest), f32x4.splat(perUnit)), 0);

    const perUnits = f32x4.splat(perUnit), zeros = i32x4.splat(zero);
    for (x = xPtr; x < eightsEnd; x += 32, codesPtr += 8 * CODE_BYTES) {
      storeEight(codesPtr, codesOf(v128.load(x), v128.load(x, 16), perUnits, zeros));
    }
    for (; x < end; x += 4, codesPtr += CODE_BYTES) {
      const x0 = v128.load32_zero(x);
      storeOne(codesPtr, i16x8.extract_lane_s(codesOf(x0, x0, perUnits, zeros), 0));
    }
    for (let rest = -k & (4 / CODE_BYTES - 1); rest > 0; rest--, codesPtr += CODE_BYTES) storeOne(codesPtr, 0);
    store<f32>(codesPtr, scale);
    store<i32>(codesPtr, zero, 4);
    codesPtr += 8;
  }
}

const CODE_BYTES: i32 = ASC_FEATURE_RELAXED_SIMD ? 1 : 2;

/** 2^-126: the largest scale of rows that are zero or nearly so. */
const SMALLEST_SCALE: f32 = 1.1754943508222875e-38;

/** 1.5 2^23, a number whose ulp is 1: what is added to it is rounded to an integer, ties to even, in its low bits. */
const UNITS: f32 = 12582912;

/** x · perUnit, rounded to int32. */
// @ts-ignore: decorator
@inline
function rounded(x: v128, perUnit: v128): v128 {
  return i32x4.sub(f32x4.add(f32x4.mul(x, perUnit), f32x4.splat(UNITS)), i32x4.splat(0x4b400000));
}

/** Eight codes in 16 bits each. */
// @ts-ignore: decorator
@inline
function codesOf(x0: v128, x1: v128, perUnit: v128, zero: v128): v128 {
  const codes = i16x8.narrow_i32x4_s(i32x4.add(rounded(x0, perUnit), zero), i32x4.add(rounded(x1, perUnit), zero));
  return i16x8.min_s(i16x8.max_s(codes, i16x8.splat(0)), i16x8.splat(127));
}

// @ts-ignore: decorator
@inline
function storeEight(ptr: usize, codes: v128): void {
  if (CODE_BYTES == 1) v128.store64_lane(ptr, i8x16.narrow_i16x8_u(codes, codes), 0);
  else v128.store(ptr, codes);
}

// @ts-ignore: decorator
@inline
function storeOne(ptr: usize, code: i32): void {
  if (CODE_BYTES == 1) store<u8>(ptr, code);
  else store<u16>(ptr, code);
}

// @ts-ignore: decorator
@inline
function lane(v: v128, i: u8): f32 {
  if (i == 0) return f32x4.extract_lane(v, 0);
  if (i == 1) return f32x4.extract_lane(v, 1);
  if (i == 2) return f32x4.extract_lane(v, 2);
  return f32x4.extract_lane(v, 3);
}
