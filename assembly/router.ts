/**
 * logits = x wᵀ in float64, rounded once at the end: decisions hang on them.
 *
 * Shapes  x [numTokens, k], packed w of numPanels panels -> logits [numTokens, numExperts], float32, dense
 * Units   bytes and elements. Panels are of float64: panel p holds the experts e = 4p … 4p + 3 (zeros past the last),
 *         for each pair of inputs l = 2h, 2h + 1: w[4p][l], w[4p][l + 1], w[4p + 1][l], …, w[4p + 3][l + 1], that is
 *         w[4p + j][2h + q] at 8h + 2j + q; an odd k is filled up with a zero
 * Order   the sums of even and of odd l, each in order, from 0; then their sum; then the rounding to float32
 * Error   products are exact; |logit - exact| <= 2^-24 |logit| + k 2^-53 Σ |x| |w|
 */
export function route_f32(
  xPtr: usize, panelsPtr: usize, logitsPtr: usize, numTokens: i32, k: i32, numExperts: i32,
): void {
  const pairs = k >> 1;
  const panelBytes = <usize>((k + 1) >> 1) * 64;
  const rowBytes = <usize>k << 2;
  for (let e = 0; e < numExperts; e += 4) {
    const panel = panelsPtr + <usize>(e >> 2) * panelBytes;
    const outputs = min(4, numExperts - e);
    let t = 0;
    for (; t + 2 < numTokens; t += 3) routeTile(3, xPtr + <usize>t * rowBytes, rowBytes, pairs, k, panel, logitsPtr + (<usize>(t * numExperts + e) << 2), numExperts, outputs);
    if (t + 1 < numTokens) routeTile(2, xPtr + <usize>t * rowBytes, rowBytes, pairs, k, panel, logitsPtr + (<usize>(t * numExperts + e) << 2), numExperts, outputs);
    else if (t < numTokens) routeTile(1, xPtr + <usize>t * rowBytes, rowBytes, pairs, k, panel, logitsPtr + (<usize>(t * numExperts + e) << 2), numExperts, outputs);
  }
}

// @ts-ignore: decorator
@inline
function routeTile(
  rows: i32, xPtr: usize, rowBytes: usize, pairs: i32, k: i32, panel: usize,
  out: usize, numExperts: i32, outputs: i32,
): void {
  let x0 = xPtr, x1 = xPtr + rowBytes, x2 = x1 + rowBytes;
  let c00 = f64x2.splat(0), c01 = c00, c02 = c00, c03 = c00;
  let c10 = c00, c11 = c00, c12 = c00, c13 = c00, c20 = c00, c21 = c00, c22 = c00, c23 = c00;
  let w = panel;
  const end = panel + <usize>pairs * 64;
  while (w < end) {
    const w0 = v128.load(w), w1 = v128.load(w, 16), w2 = v128.load(w, 32), w3 = v128.load(w, 48);
    let x = f64x2.promote_low_f32x4(v128.load64_zero(x0));
    c00 = madd64(x, w0, c00); c01 = madd64(x, w1, c01); c02 = madd64(x, w2, c02); c03 = madd64(x, w3, c03);
    x0 += 8;
    if (rows > 1) {
      x = f64x2.promote_low_f32x4(v128.load64_zero(x1));
      c10 = madd64(x, w0, c10); c11 = madd64(x, w1, c11); c12 = madd64(x, w2, c12); c13 = madd64(x, w3, c13);
      x1 += 8;
    }
    if (rows > 2) {
      x = f64x2.promote_low_f32x4(v128.load64_zero(x2));
      c20 = madd64(x, w0, c20); c21 = madd64(x, w1, c21); c22 = madd64(x, w2, c22); c23 = madd64(x, w3, c23);
      x2 += 8;
    }
    w += 64;
  }
  if (k & 1) {
    // The last input alone: only its own four bytes may be read.
    const w0 = v128.load(w), w1 = v128.load(w, 16), w2 = v128.load(w, 32), w3 = v128.load(w, 48);
    let x = f64x2.promote_low_f32x4(v128.load32_zero(x0));
    c00 = madd64(x, w0, c00); c01 = madd64(x, w1, c01); c02 = madd64(x, w2, c02); c03 = madd64(x, w3, c03);
    if (rows > 1) {
      x = f64x2.promote_low_f32x4(v128.load32_zero(x1));
      c10 = madd64(x, w0, c10); c11 = madd64(x, w1, c11); c12 = madd64(x, w2, c12); c13 = madd64(x, w3, c13);
    }
    if (rows > 2) {
      x = f64x2.promote_low_f32x4(v128.load32_zero(x2));
      c20 = madd64(x, w0, c20); c21 = madd64(x, w1, c21); c22 = madd64(x, w2, c22); c23 = madd64(x, w3, c23);
    }
  }
  storeLogits(out, c00, c01, c02, c03, outputs);
  if (rows > 1) storeLogits(out + (<usize>numExperts << 2), c10, c11, c12, c13, outputs);
  if (rows > 2) storeLogits(out + (<usize>numExperts << 3), c20, c21, c22, c23, outputs);
}

// @ts-ignore: decorator
@inline
function storeLogits(out: usize, c0: v128, c1: v128, c2: v128, c3: v128, outputs: i32): void {
  store<f32>(out, sum(c0));
  if (outputs > 1) store<f32>(out + 4, sum(c1));
  if (outputs > 2) store<f32>(out + 8, sum(c2));
  if (outputs > 3) store<f32>(out + 12, sum(c3));
}

// @ts-ignore: decorator
@inline
function sum(c: v128): f32 {
  return <f32>(f64x2.extract_lane(c, 0) + f64x2.extract_lane(c, 1));
}

// @ts-ignore: decorator
@inline
function madd64(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? f64x2.relaxed_madd(a, b, c) : f64x2.add(f64x2.mul(a, b), c);
}
