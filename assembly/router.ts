/**
 * logits = x wᵀ in float64, rounded once, at the end: decisions hang on them.
 *
 * Shapes  x [numTokens, k], packed w -> logits [numTokens, numExperts], dense float32
 * Units   bytes and elements. w is float64, in panels of eight experts (zeros past the last): w[8p + j][l] is element
 *         8l + j of panel p. scratchPtr: room for four tokens in float64 and their sums, 32k + 256 bytes
 * Order   each logit is one chain of sums from 0 in order of l. The products of float32s are exact in float64, so a fused
 *         multiply-add changes nothing: both targets give the float64 sum of that order, rounded to float32
 *
 * tileTokens is how many tokens share the loads of a panel: 2, or 4 where the engine joins vectors into 256 bits.
 */
export function route_f32(
  xPtr: usize, panelsPtr: usize, logitsPtr: usize, scratchPtr: usize, numTokens: i32, k: i32, numExperts: i32,
  tileTokens: i32,
): void {
  const rows = scratchPtr + 256;
  for (let left = numTokens; left > 0;) {
    const tokens = left >= 4 && tileTokens == 4 ? 4 : left >= 2 ? 2 : 1;
    widen(xPtr, rows, tokens * k);
    for (let e = 0; e < numExperts; e += 8) {
      const panel = panelsPtr + (<usize>(e * k) << 3);
      if (tokens == 4) routeTile(4, rows, panel, k, scratchPtr);
      else if (tokens == 2) routeTile(2, rows, panel, k, scratchPtr);
      else routeTile(1, rows, panel, k, scratchPtr);
      for (let t = 0; t < tokens; t++) {
        round(scratchPtr + (<usize>t << 6), logitsPtr + (<usize>(t * numExperts + e) << 2), min(8, numExperts - e));
      }
    }
    left -= tokens;
    xPtr += <usize>(tokens * k) << 2;
    logitsPtr += <usize>(tokens * numExperts) << 2;
  }
}

/** n float32s to float64. */
// @ts-ignore: decorator
@inline
function widen(from: usize, to: usize, n: i32): void {
  const end = from + (<usize>n << 2);
  for (; from + 4 < end; from += 8, to += 16) v128.store(to, f64x2.promote_low_f32x4(v128.load64_zero(from)));
  if (from < end) store<f64>(to, load<f32>(from));
}

/** n float64s to float32. */
// @ts-ignore: decorator
@inline
function round(from: usize, to: usize, n: i32): void {
  for (const end = from + (<usize>n << 3); from < end; from += 8, to += 4) store<f32>(to, <f32>load<f64>(from));
}

/** One, two or four tokens (a constant), in float64 and dense, against a panel: eight sums each. */
// @ts-ignore: decorator
@inline
function routeTile(tokens: i32, rows: usize, panel: usize, k: i32, sums: usize): void {
  const rowBytes = <usize>k << 3, end = rows + rowBytes, zero = f64x2.splat(0);
  let x0 = rows, x1 = x0 + rowBytes, x2 = x1 + rowBytes, x3 = x2 + rowBytes, w = panel;
  let c00 = zero, c01 = zero, c02 = zero, c03 = zero, c10 = zero, c11 = zero, c12 = zero, c13 = zero;
  let c20 = zero, c21 = zero, c22 = zero, c23 = zero, c30 = zero, c31 = zero, c32 = zero, c33 = zero;
  do {
    const w0 = v128.load(w), w1 = v128.load(w, 16), w2 = v128.load(w, 32), w3 = v128.load(w, 48);
    let x = v128.load64_splat(x0); x0 += 8;
    c00 = madd(x, w0, c00); c01 = madd(x, w1, c01); c02 = madd(x, w2, c02); c03 = madd(x, w3, c03);
    if (tokens > 1) {
      x = v128.load64_splat(x1); x1 += 8;
      c10 = madd(x, w0, c10); c11 = madd(x, w1, c11); c12 = madd(x, w2, c12); c13 = madd(x, w3, c13);
    }
    if (tokens > 2) {
      x = v128.load64_splat(x2); x2 += 8;
      c20 = madd(x, w0, c20); c21 = madd(x, w1, c21); c22 = madd(x, w2, c22); c23 = madd(x, w3, c23);
      x = v128.load64_splat(x3); x3 += 8;
      c30 = madd(x, w0, c30); c31 = madd(x, w1, c31); c32 = madd(x, w2, c32); c33 = madd(x, w3, c33);
    }
    w += 64;
  } while (x0 < end);
  storeSums(sums, c00, c01, c02, c03);
  if (tokens > 1) storeSums(sums + 64, c10, c11, c12, c13);
  if (tokens > 2) {
    storeSums(sums + 128, c20, c21, c22, c23);
    storeSums(sums + 192, c30, c31, c32, c33);
  }
}

// @ts-ignore: decorator
@inline
function storeSums(sums: usize, c0: v128, c1: v128, c2: v128, c3: v128): void {
  v128.store(sums, c3, 48);
  v128.store(sums, c2, 32);
  v128.store(sums, c1, 16);
  v128.store(sums, c0);
}

// @ts-ignore: decorator
@inline
function madd(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? f64x2.relaxed_madd(a, b, c) : f64x2.add(f64x2.mul(a, b), c);
}
