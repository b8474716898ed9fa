import { exp2Raised, expRaised, lower, RAISE, roundTo } from './exp';
import { madd } from './vector';

/**
 * out[i] = σ(h[i]): the activations of rule E3, by id: 0 relu, 1 gelu, 2 gelu_tanh, 3 silu.
 *
 * Units   hPtr, outPtr are byte addresses, any multiple of 4; out may be h; n counts elements, from 0
 * Error   where σ is normal, at most 0 (relu), 6 (gelu), 3.5 (gelu_tanh) and 3.5 (silu) ulp; else 2.5 · 2^-149.
 *         Largest over the floats of 2^-30 <= |h| < 128: 5.94, 3.41 and 3.40 ulp.
 *         Finite in, finite out; NaN gives NaN; σ(-∞) = 0; a zero's sign is not promised
 *
 * A lane does not look at the others, so the bits of an element do not depend on its place.
 */
export function activate_f32(hPtr: usize, outPtr: usize, n: i32, activation: i32): void {
  if (activation == 0) relu_f32(hPtr, outPtr, n);
  else if (activation == 1) gelu_f32(hPtr, outPtr, n);
  else if (activation == 2) gelu_tanh_f32(hPtr, outPtr, n);
  else silu_f32(hPtr, outPtr, n);
}

/** out[i] = 1 / (1 + e^-logits[i]), within 2.5 ulp where it is normal; the arguments are those of activate_f32. */
export function sigmoid_f32(logitsPtr: usize, outPtr: usize, n: i32): void {
  map(logitsPtr, outPtr, n, SIGMOID);
}

/** out[i] *= factors[i], n elements: what a gate lets through. */
export function multiply_f32(factorsPtr: usize, outPtr: usize, n: i32): void {
  const eightsEnd = outPtr + (<usize>(n & ~7) << 2), end = outPtr + (<usize>n << 2);
  for (; outPtr < eightsEnd; factorsPtr += 32, outPtr += 32) {
    const out0 = f32x4.mul(v128.load(outPtr), v128.load(factorsPtr));
    const out1 = f32x4.mul(v128.load(outPtr, 16), v128.load(factorsPtr, 16));
    v128.store(outPtr, out1, 16);
    v128.store(outPtr, out0);
  }
  for (; outPtr < end; factorsPtr += 4, outPtr += 4) store<f32>(outPtr, load<f32>(outPtr) * load<f32>(factorsPtr));
}

// Functions of their own: the optimizer would fold loops that differ in a constant alone into one, with the test inside.
function relu_f32(hPtr: usize, outPtr: usize, n: i32): void { map(hPtr, outPtr, n, 0); }
function gelu_f32(hPtr: usize, outPtr: usize, n: i32): void { map(hPtr, outPtr, n, 1); }
function gelu_tanh_f32(hPtr: usize, outPtr: usize, n: i32): void { map(hPtr, outPtr, n, 2); }
function silu_f32(hPtr: usize, outPtr: usize, n: i32): void { map(hPtr, outPtr, n, 3); }

const SIGMOID: i32 = 4;

// @ts-ignore: decorator
@inline
function map(hPtr: usize, outPtr: usize, n: i32, activation: i32): void {
  const eightsEnd = hPtr + (<usize>(n & ~7) << 2), foursEnd = hPtr + (<usize>(n & ~3) << 2);
  const end = hPtr + (<usize>n << 2);
  for (; hPtr < eightsEnd; hPtr += 32, outPtr += 32) {
    const h0 = v128.load(hPtr), h1 = v128.load(hPtr, 16);
    const out0 = activate(h0, activation), out1 = activate(h1, activation);
    v128.store(outPtr, out1, 16);
    v128.store(outPtr, out0);
  }
  for (; hPtr < foursEnd; hPtr += 16, outPtr += 16) v128.store(outPtr, activate(v128.load(hPtr), activation));
  for (; hPtr < end; hPtr += 4, outPtr += 4) {
    v128.store32_lane(outPtr, activate(v128.load32_zero(hPtr), activation), 0);
  }
}

/** One of the functions, by its id: a constant where this is called, so that the others leave no code. */
// @ts-ignore: decorator
@inline
function activate(h: v128, activation: i32): v128 {
  if (activation == 0) return relu(h);
  if (activation == 1) return gelu(h);
  if (activation == 2) return geluTanh(h);
  if (activation == 3) return silu(h);
  return sigmoid(h);
}

/** max(h, 0): pmax keeps NaN, and is one instruction. */
// @ts-ignore: decorator
@inline
function relu(h: v128): v128 {
  return f32x4.pmax(h, f32x4.splat(0));
}

// The others are h s(h) with s(h) + s(-h) = 1, so relu(h) - a s(-a), a = |h|: a tail in which nothing cancels, and which
// is at most half of relu(h). Beyond the bound put on a, the tail is 0.

/** The tail is a E / (1 + E), E = e^-a. */
// @ts-ignore: decorator
@inline
function silu(h: v128): v128 {
  const a = f32x4.pmin(f32x4.abs(h), f32x4.splat(110));
  return f32x4.sub(relu(h), logisticTail(a, expRaised(f32x4.neg(a), f32x4.splat(0))));
}

/** a E / (1 + E), E = raised / 2^64. */
// @ts-ignore: decorator
@inline
function logisticTail(a: v128, raised: v128): v128 {
  return lower(f32x4.div(f32x4.mul(a, raised), f32x4.add(f32x4.splat(1), lower(raised))));
}

/**
 * The tail is a Φ(-a) = a e^(-a²/2) R(a), Φ the normal distribution.
 *
 * Maths   a²/2 is needed to 2^-26, not to an ulp: with hi the first 12 bits of a, hi² is exact, and a² - hi² =
 *         (a - hi)(a + hi) is small.
 *         R(a) = Φ(-a) e^(a²/2) = ½ erfcx(a/√2), from ½ to 0.027, is (½ D + N) / ((a + 2) D): (a + 2) R(a) varies from
 *         1 to 0.45 alone, and with D above and below, part of its rounding cancels. D and N are the polynomials of
 *         degree 4 with the least relative error on [0, 14.5] (Remez exchange for rational functions), 2^-26.1
 */
// @ts-ignore: decorator
@inline
function gelu(h: v128): v128 {
  const a = f32x4.pmin(f32x4.abs(h), f32x4.splat(14.5));
  const hi = v128.and(a, i32x4.splat(0xfffff000)), half = f32x4.splat(0.5);
  const small = f32x4.mul(f32x4.sub(hi, a), f32x4.add(a, hi));
  const bell = expRaised(f32x4.mul(f32x4.splat(-0.5), f32x4.mul(hi, hi)), f32x4.mul(half, small));

  let n = madd(f32x4.splat(-0.00237332927113), a, f32x4.splat(0.00099275934799));
  n = madd(n, a, f32x4.splat(0.0654944813654));
  n = madd(n, a, f32x4.splat(0.304031861833));
  n = madd(n, a, f32x4.splat(0.500000013537));
  let d = madd(f32x4.splat(0.0234850853251), a, f32x4.splat(0.175580637077));
  d = madd(d, a, f32x4.splat(0.646061513748));
  d = madd(d, a, f32x4.splat(1.20383466563));
  d = madd(d, a, f32x4.splat(1));
  const numerator = f32x4.mul(f32x4.mul(a, bell), madd(half, d, n));
  const denominator = f32x4.mul(f32x4.add(a, f32x4.splat(2)), d);
  return f32x4.sub(relu(h), lower(f32x4.div(numerator, denominator)));
}

/**
 * The tail is a E / (1 + E), E = e^-2u = 2^-(a (A + B a²)), A = 2 · 0.7978845608028654 / ln 2, B = 0.044715 A.
 *
 * Maths   the exponent, as far as -163, is needed to 2^-25: as a sum of `high`, exact, and `low`, small. With hi = a to
 *         4 binary places it is hi (A + B hi²) + (a - hi) (A + B (a² + a hi + hi²)). A and B are each a short number
 *         and a rest; with the short ones A + B hi² is exact, and hi times its first 12 binary places is `high`
 */
// @ts-ignore: decorator
@inline
function geluTanh(h: v128): v128 {
  const a = f32x4.pmin(f32x4.abs(h), f32x4.splat(11));
  const hi = roundTo(a, 1.0 / 16.0), hi2 = f32x4.mul(hi, hi);
  const short = madd(hi2, f32x4.splat(-211.0 / 2048.0), f32x4.splat(-1207020.0 / 524288.0));
  const rest = madd(hi2, f32x4.splat(0.00008410417), f32x4.splat(-2.5136697e-7));
  const slope = madd(madd(a, f32x4.add(a, hi), hi2), f32x4.splat(-0.10294323948), f32x4.splat(-2.302208198144325));
  const places = roundTo(short, 1.0 / 4096.0);
  const high = f32x4.mul(hi, places);
  const low = madd(hi, f32x4.add(f32x4.sub(short, places), rest), f32x4.mul(f32x4.sub(a, hi), slope));
  return f32x4.sub(relu(h), logisticTail(a, exp2Raised(high, low)));
}

/** 1 / (1 + E) for z >= 0 and E / (1 + E) for z < 0, E = e^-|z|. */
// @ts-ignore: decorator
@inline
function sigmoid(z: v128): v128 {
  const a = f32x4.pmin(f32x4.abs(z), f32x4.splat(110));
  const raised = expRaised(f32x4.neg(a), f32x4.splat(0));
  const numerator = v128.bitselect(raised, f32x4.splat(RAISE), f32x4.lt(z, f32x4.splat(0)));
  return lower(f32x4.div(numerator, f32x4.add(f32x4.splat(1), lower(raised))));
}
