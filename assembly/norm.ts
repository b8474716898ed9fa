import { highHalf, madd, sumOfPair } from './vector';

/**
 * x += add where there is something to add, in place; then out = LayerNorm(x), row by row.
 *
 * Maths   out = (x - mean) / √(variance + eps) · weight + bias; the variance is the population's
 * Shapes  numRows rows of d floats, d >= 1, at strides in floats; norm: d weights, d biases, eps
 * Units   byte addresses, any multiple of 4; addPtr 0: nothing is added. out may be x
 * Order   sums are of float64: eight partial sums from 0, the q-th over c = q, q + 8, …, then in pairs, and pairs of pairs;
 *         then what is left of a row past its eights, one after another. (x - mean) / √(variance + eps) is of float64 too, and
 *         rounded to float32 before it meets weight and bias
 * Error   about 2^-24 (2 |out - bias| + |out|), of the x that is written; spec/model-bounds.ts has the rest
 */
export function add_norm_f32(
  xPtr: usize, xStride: i32, addPtr: usize, addStride: i32, normPtr: usize, outPtr: usize, outStride: i32,
  numRows: i32, d: i32,
): void {
  const rowBytes = <usize>d << 2, eightsBytes = <usize>(d & ~7) << 2;
  const biases = normPtr + rowBytes, eps = <f64>load<f32>(biases + rowBytes);
  for (; numRows > 0; numRows--, xPtr += <usize>xStride << 2, outPtr += <usize>outStride << 2) {
    if (addPtr) {
      addRow(xPtr, addPtr, eightsBytes, rowBytes);
      addPtr += <usize>addStride << 2;
    }
    const mean = sumOf(xPtr, eightsBytes, rowBytes, 0, 0) / d;
    const scale = 1 / Math.sqrt(sumOf(xPtr, eightsBytes, rowBytes, 1, mean) / d + eps);
    const means = f64x2.splat(mean), scales = f64x2.splat(scale);
    let at: usize = 0;
    for (; at < eightsBytes; at += 32) {
      const n0 = normalised(v128.load(xPtr + at), means, scales), n1 = normalised(v128.load(xPtr + at, 16), means, scales);
      const out0 = madd(n0, v128.load(normPtr + at), v128.load(biases + at));
      const out1 = madd(n1, v128.load(normPtr + at, 16), v128.load(biases + at, 16));
      v128.store(outPtr + at, out1, 16);
      v128.store(outPtr + at, out0);
    }
    // One lane of the same instructions: a scalar product would not be fused.
    for (; at < rowBytes; at += 4) {
      const n = normalised(v128.load32_zero(xPtr + at), means, scales);
      v128.store32_lane(outPtr + at, madd(n, v128.load32_zero(normPtr + at), v128.load32_zero(biases + at)), 0);
    }
  }
}

// @ts-ignore: decorator
@inline
function addRow(x: usize, add: usize, eightsBytes: usize, rowBytes: usize): void {
  let at: usize = 0;
  for (; at < eightsBytes; at += 32) {
    const sum0 = f32x4.add(v128.load(x + at), v128.load(add + at));
    const sum1 = f32x4.add(v128.load(x + at, 16), v128.load(add + at, 16));
    v128.store(x + at, sum1, 16);
    v128.store(x + at, sum0);
  }
  for (; at < rowBytes; at += 4) store<f32>(x + at, load<f32>(x + at) + load<f32>(add + at));
}

/** Σ x, or with `squared` Σ (x - mean)². */
// @ts-ignore: decorator
@inline
function sumOf(x: usize, eightsBytes: usize, rowBytes: usize, squared: i32, mean: f64): f64 {
  const means = f64x2.splat(mean);
  let s0 = f64x2.splat(0), s1 = s0, s2 = s0, s3 = s0, at: usize = 0;
  for (; at < eightsBytes; at += 32) {
    const x0 = v128.load(x + at), x1 = v128.load(x + at, 16);
    s0 = f64x2.add(s0, term(x0, squared, means));
    s1 = f64x2.add(s1, term(highHalf(x0), squared, means));
    s2 = f64x2.add(s2, term(x1, squared, means));
    s3 = f64x2.add(s3, term(highHalf(x1), squared, means));
  }
  let sum = (sumOfPair(s0) + sumOfPair(s1)) + (sumOfPair(s2) + sumOfPair(s3));
  for (; at < rowBytes; at += 4) {
    sum += f64x2.extract_lane(term(v128.load32_zero(x + at), squared, means), 0);
  }
  return sum;
}

/** What the first two of four floats add, in float64. */
// @ts-ignore: decorator
@inline
function term(x: v128, squared: i32, means: v128): v128 {
  const wide = f64x2.promote_low_f32x4(x);
  if (!squared) return wide;
  const deviation = f64x2.sub(wide, means);
  return f64x2.mul(deviation, deviation);
}

/** (x - mean) scale in each of four lanes. */
// @ts-ignore: decorator
@inline
function normalised(x: v128, means: v128, scales: v128): v128 {
  const low = f64x2.mul(f64x2.sub(f64x2.promote_low_f32x4(x), means), scales);
  const high = f64x2.mul(f64x2.sub(f64x2.promote_low_f32x4(highHalf(x)), means), scales);
  return v128.shuffle<f64>(f32x4.demote_f64x2_zero(low), f32x4.demote_f64x2_zero(high), 0, 2);
}
