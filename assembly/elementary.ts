/**
 * The elementary functions in float32, four lanes at a time, from additions, multiplications and divisions alone:
 * in target simd a value has the same bits on every machine. A lane does not depend on the others.
 */

/** The activation σ of `h`: one of rule E3, by its id. A constant id leaves the code of that one alone. */
// @ts-ignore: decorator
@inline
export function activate(h: v128, activation: i32): v128 {
  if (activation == 0) return relu(h);
  if (activation == 1) return gelu(h);
  if (activation == 2) return geluTanh(h);
  return silu(h);
}

/** out[i] = σ(h[i]); out may be h. */
export function activate_f32(hPtr: usize, outPtr: usize, n: i32, activation: i32): void {
  if (activation == 0) activateAll(hPtr, outPtr, n, 0);
  else if (activation == 1) activateAll(hPtr, outPtr, n, 1);
  else if (activation == 2) activateAll(hPtr, outPtr, n, 2);
  else activateAll(hPtr, outPtr, n, 3);
}

// @ts-ignore: decorator
@inline
function activateAll(hPtr: usize, outPtr: usize, n: i32, activation: i32): void {
  const foursEnd = hPtr + (<usize>(n & ~3) << 2), end = hPtr + (<usize>n << 2);
  for (; hPtr < foursEnd; hPtr += 16, outPtr += 16) v128.store(outPtr, activate(v128.load(hPtr), activation));
  for (; hPtr < end; hPtr += 4, outPtr += 4) {
    v128.store32_lane(outPtr, activate(v128.load32_zero(hPtr), activation), 0);
  }
}

/** out[i] = 1 / (1 + e^-logits[i]); out may be logits. */
export function sigmoid_f32(logitsPtr: usize, outPtr: usize, n: i32): void {
  const foursEnd = logitsPtr + (<usize>(n & ~3) << 2), end = logitsPtr + (<usize>n << 2);
  for (; logitsPtr < foursEnd; logitsPtr += 16, outPtr += 16) {
    v128.store(outPtr, sigmoid(v128.load(logitsPtr)));
  }
  for (; logitsPtr < end; logitsPtr += 4, outPtr += 4) {
    v128.store32_lane(outPtr, sigmoid(v128.load32_zero(logitsPtr)), 0);
  }
}

/** max(h, 0); pmax keeps NaN. */
// @ts-ignore: decorator
@inline
function relu(h: v128): v128 {
  return f32x4.pmax(h, f32x4.splat(0));
}

// Every other activation is h s(h) with 1 - s(h) = s(-h), so it is relu(h) - |h| s(-|h|): one formula for both signs, of
// a tail that nothing cancels in. The bounds on |h| are where the tail has become 0.

/** |h| s(-|h|) = |h| E / (1 + E), E = e^-|h|. */
// @ts-ignore: decorator
@inline
function silu(h: v128): v128 {
  const a = f32x4.pmin(f32x4.abs(h), f32x4.splat(110));
  return f32x4.sub(relu(h), tailOfSigmoid(a, expRaised(f32x4.neg(a), f32x4.splat(0))));
}

// @ts-ignore: decorator
@inline
function gelu(h: v128): v128 {
  const a = f32x4.pmin(f32x4.abs(h), f32x4.splat(14.5));
  const hi = v128.and(a, i32x4.splat(0xfffff000)), lo = f32x4.sub(a, hi);
  const half = f32x4.splat(-0.5);
  const bell = expRaised(f32x4.mul(half, f32x4.mul(hi, hi)), f32x4.mul(half, f32x4.mul(lo, f32x4.add(a, hi))));
  let p = madd(f32x4.splat(0.00411630809204283), a, f32x4.splat(0.0406332149737531));
  p = madd(p, a, f32x4.splat(0.183235096775963));
  p = madd(p, a, f32x4.splat(0.438294884791164));
  p = madd(p, a, f32x4.splat(0.5));
  let q = madd(f32x4.splat(0.0103179345055364), a, f32x4.splat(0.101858812657947));
  q = madd(q, a, f32x4.splat(0.469470523936842));
  q = madd(q, a, f32x4.splat(1.20250295439711));
  q = madd(q, a, f32x4.splat(1.67447475086183));
  q = madd(q, a, f32x4.splat(1));
  const tail = lower(f32x4.div(f32x4.mul(f32x4.mul(a, bell), p), q));
  return f32x4.sub(relu(h), tail);
}

// @ts-ignore: decorator
@inline
function geluTanh(h: v128): v128 {
  const a = f32x4.pmin(f32x4.abs(h), f32x4.splat(11));
  // hi on grid 2^-4
  const grid4 = f32x4.splat(786432), grid12 = f32x4.splat(3072);
  const hi = f32x4.sub(f32x4.add(a, grid4), grid4), lo = f32x4.sub(a, hi);
  const hi2 = f32x4.mul(hi, hi);
  const v = madd(f32x4.splat(-0.10302734375), hi2, f32x4.splat(-2.3022079467773438));
  const w = f32x4.sub(f32x4.add(v, grid12), grid12);
  const wLow = f32x4.add(f32x4.sub(v, w), madd(f32x4.splat(8.410417e-5), hi2, f32x4.splat(-2.5136697e-7)));
  const slope = madd(f32x4.splat(-0.10294324), madd(a, f32x4.add(a, hi), hi2), f32x4.splat(-2.3022082));
  const high = f32x4.mul(hi, w);
  const low = madd(hi, wLow, f32x4.mul(lo, slope));
  const t = f32x4.add(f32x4.add(high, low), f32x4.splat(12582912));
  const n = f32x4.sub(t, f32x4.splat(12582912));
  const f = f32x4.add(f32x4.sub(high, n), low);
  const e = raise(expNearZero(f32x4.mul(f, f32x4.splat(0.6931471805599453))), t);
  return f32x4.sub(relu(h), tailOfSigmoid(a, e));
}

// @ts-ignore: decorator
@inline
function sigmoid(z: v128): v128 {
  const e = expRaised(f32x4.neg(f32x4.pmin(f32x4.abs(z), f32x4.splat(110))), f32x4.splat(0));
  const numerator = v128.bitselect(e, f32x4.splat(18446744073709551616.0), f32x4.lt(z, f32x4.splat(0)));
  return lower(f32x4.div(numerator, f32x4.add(f32x4.splat(1), lower(e))));
}

// @ts-ignore: decorator
@inline
function tailOfSigmoid(a: v128, e: v128): v128 {
  return lower(f32x4.div(f32x4.mul(a, e), f32x4.add(f32x4.splat(1), lower(e))));
}

// @ts-ignore: decorator
@inline
export function expRaised(x: v128, more: v128): v128 {
  const t = madd(x, f32x4.splat(1.4426950408889634), f32x4.splat(12582912));
  const n = f32x4.sub(t, f32x4.splat(12582912));
  let r = madd(n, f32x4.splat(-0.693359375), x);
  r = madd(n, f32x4.splat(2.12194440054690581e-4), r);
  return raise(expNearZero(f32x4.add(r, more)), t);
}

// @ts-ignore: decorator
@inline
function expNearZero(r: v128): v128 {
  let q = madd(f32x4.splat(0.00138133427965), r, f32x4.splat(0.00836932314444));
  q = madd(q, r, f32x4.splat(0.0416684473368));
  q = madd(q, r, f32x4.splat(0.166665155943));
  q = madd(q, r, f32x4.splat(0.499999931058));
  return f32x4.add(f32x4.splat(1), madd(f32x4.mul(r, r), q, r));
}

// @ts-ignore: decorator
@inline
function raise(v: v128, t: v128): v128 {
  return f32x4.mul(v, i32x4.add(i32x4.shl(t, 23), i32x4.splat((127 + 64) << 23)));
}

// @ts-ignore: decorator
@inline
export function lower(v: v128): v128 {
  return f32x4.mul(v, f32x4.splat(5.421010862427522e-20));
}

/** a * b + c, rounded twice in target simd; rounded once in target relaxed where the machine has a fused instruction. */
// @ts-ignore: decorator
@inline
function madd(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c);
}
