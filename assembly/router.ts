/**
 * logits = x wᵀ in float64, rounded once, at the end: decisions hang on them.
 *
 * Shapes  x [numTokens, k], packed w -> logits [numTokens, numExperts], dense float32
 * Units   bytes and elements. w is float64, in panels of eight experts (zeros past the last): w[8p + j][l] is element
 *         8l + j of panel p. scratchPtr: room for two tokens in float64, 16k bytes
 * Order   each logit is one chain of sums from 0 in order of l. The products of float32s are exact in float64, so a fused
 *         multiply-add changes nothing: both targets give the float64 sum of that order, rounded to float32
 */
export function route_f32(
  xPtr: usize, panelsPtr: usize, logitsPtr: usize, scratchPtr: usize, numTokens: i32, k: i32, numExperts: i32,
): void {
  for (let t = 0; t < numTokens; t += 2) {
    const tokens = min(2, numTokens - t);
    widen(xPtr + (<usize>(t * k) << 2), scratchPtr, tokens * k);
    for (let e = 0; e < numExperts; e += 8) {
      const panel = panelsPtr + (<usize>(e * k) << 3);
      const logits = logitsPtr + (<usize>(t * numExperts + e) << 2);
      const experts = min(8, numExperts - e);
      if (tokens > 1) routeTile(2, scratchPtr, panel, k, logits, numExperts, experts);
      else routeTile(1, scratchPtr, panel, k, logits, numExperts, experts);
    }
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

/** One or two tokens (a constant), in float64 and dense, against a panel. */
// @ts-ignore: decorator
@inline
function routeTile(
  tokens: i32, xPtr: usize, panel: usize, k: i32, logits: usize, numExperts: i32, experts: i32,
): void {
  let x0 = xPtr, x1 = xPtr + (<usize>k << 3), w = panel;
  const end = x1;
  let c00 = f64x2.splat(0), c01 = c00, c02 = c00, c03 = c00, c10 = c00, c11 = c00, c12 = c00, c13 = c00;
  do {
    const w0 = v128.load(w), w1 = v128.load(w, 16), w2 = v128.load(w, 32), w3 = v128.load(w, 48);
    let x = v128.load64_splat(x0);
    c00 = madd(x, w0, c00); c01 = madd(x, w1, c01); c02 = madd(x, w2, c02); c03 = madd(x, w3, c03);
    if (tokens > 1) {
      x = v128.load64_splat(x1);
      c10 = madd(x, w0, c10); c11 = madd(x, w1, c11); c12 = madd(x, w2, c12); c13 = madd(x, w3, c13);
      x1 += 8;
    }
    x0 += 8;
    w += 64;
  } while (x0 < end);
  storeLogits(logits, experts, c00, c01, c02, c03);
  if (tokens > 1) storeLogits(logits + (<usize>numExperts << 2), experts, c10, c11, c12, c13);
}

/** Round the sums of the first `experts` (1 to 8) of a panel. */
// @ts-ignore: decorator
@inline
function storeLogits(logits: usize, experts: i32, c0: v128, c1: v128, c2: v128, c3: v128): void {
  store<f32>(logits, <f32>f64x2.extract_lane(c0, 0));
  if (experts > 1) store<f32>(logits, <f32>f64x2.extract_lane(c0, 1), 4);
  if (experts > 2) store<f32>(logits, <f32>f64x2.extract_lane(c1, 0), 8);
  if (experts > 3) store<f32>(logits, <f32>f64x2.extract_lane(c1, 1), 12);
  if (experts > 4) store<f32>(logits, <f32>f64x2.extract_lane(c2, 0), 16);
  if (experts > 5) store<f32>(logits, <f32>f64x2.extract_lane(c2, 1), 20);
  if (experts > 6) store<f32>(logits, <f32>f64x2.extract_lane(c3, 0), 24);
  if (experts > 7) store<f32>(logits, <f32>f64x2.extract_lane(c3, 1), 28);
}

// @ts-ignore: decorator
@inline
function madd(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? f64x2.relaxed_madd(a, b, c) : f64x2.add(f64x2.mul(a, b), c);
}
