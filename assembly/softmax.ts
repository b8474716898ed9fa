import { expRaised, lower } from './exp';
import { highHalf, sumOfPair } from './vector';

/**
 * p = exp(z - max z) / Σ exp(z - max z), row by row.
 *
 * Rule    R2
 * Shapes  logits, probs [numTokens, numExperts], dense; numExperts >= 1
 * Units   byte addresses, any multiple of 4; probs may be logits
 * Order   the sum is of float64: four partial sums from 0, the q-th over e = q, q + 4, …; then (s0 + s1) + (s2 + s3).
 *         It is rounded to float32, and divides
 * Error   |p - exact| <= 6 · 2^-24 p + 2^-148, however far the logits are apart. Equal logits give 1/E rounded once.
 *         A NaN or an infinity that is the maximum makes its row NaN; any other -Infinity has p = 0
 */
export function softmax_f32(logitsPtr: usize, probsPtr: usize, numTokens: i32, numExperts: i32): void {
  const foursBytes = <usize>(numExperts & ~3) << 2, rest = numExperts & 3;
  const rowBytes = <usize>numExperts << 2;
  for (let t = 0; t < numTokens; t++, logitsPtr += rowBytes, probsPtr += rowBytes) {
    const foursEnd = logitsPtr + foursBytes;
    let v = f32x4.splat(-Infinity);
    for (let z = logitsPtr; z < foursEnd; z += 16) v = f32x4.pmax(v, v128.load(z));
    if (rest) v = f32x4.pmax(v, loadRest(foursEnd, rest));
    const max = f32x4.splat(maxLane(v));

    let sum01 = f64x2.splat(0), sum23 = sum01;
    let p = probsPtr;
    for (let z = logitsPtr; z < foursEnd; z += 16, p += 16) {
      const e = expOfDifference(v128.load(z), max);
      v128.store(p, e);
      sum01 = f64x2.add(sum01, f64x2.promote_low_f32x4(e));
      sum23 = f64x2.add(sum23, f64x2.promote_low_f32x4(highHalf(e)));
    }
    if (rest) {
      const e = expOfDifference(loadRest(foursEnd, rest), max);
      storeRest(p, e, rest);
      sum01 = f64x2.add(sum01, f64x2.promote_low_f32x4(e));
      sum23 = f64x2.add(sum23, f64x2.promote_low_f32x4(highHalf(e)));
    }
    const sum = f32x4.splat(<f32>(sumOfPair(sum01) + sumOfPair(sum23)));

    p = probsPtr;
    for (const end = probsPtr + foursBytes; p < end; p += 16) v128.store(p, f32x4.div(v128.load(p), sum));
    if (rest) storeRest(p, f32x4.div(loadRest(p, rest), sum), rest);
  }
}

/**
 * e^(z - max), z <= max.
 *
 * Maths   z - max = d + error, d the rounded difference (D. E. Knuth's TwoSum): rounding z - max = -80 alone
 *         would put e^-80 off by as much as 32 · 2^-23. Where p is 0 the error may be NaN, and is masked
 */
// @ts-ignore: decorator
@inline
function expOfDifference(z: v128, max: v128): v128 {
  const d = f32x4.sub(z, max);
  const back = f32x4.sub(d, z);
  const error = f32x4.sub(f32x4.sub(z, f32x4.sub(d, back)), f32x4.add(max, back));
  const limit = f32x4.splat(-104);
  return lower(expRaised(f32x4.pmax(d, limit), v128.and(error, f32x4.gt(d, limit))));
}

/** The 1 to 3 elements at `ptr`, then -Infinity. */
// @ts-ignore: decorator
@inline
function loadRest(ptr: usize, count: i32): v128 {
  const none = f32x4.splat(-Infinity);
  if (count == 1) return v128.load32_lane(ptr, none, 0);
  const two = v128.load64_lane(ptr, none, 0);
  return count == 2 ? two : v128.load32_lane(ptr + 8, two, 2);
}

// @ts-ignore: decorator
@inline
function storeRest(ptr: usize, v: v128, count: i32): void {
  if (count == 1) {
    v128.store32_lane(ptr, v, 0);
  } else {
    v128.store64_lane(ptr, v, 0);
    if (count == 3) v128.store32_lane(ptr + 8, v, 2);
  }
}

// @ts-ignore: decorator
@inline
function maxLane(v: v128): f32 {
  const pairs = f32x4.pmax(v, highHalf(v));
  return max(f32x4.extract_lane(pairs, 0), f32x4.extract_lane(pairs, 1));
}
