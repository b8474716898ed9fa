import { madd } from './vector';

/**
 * Exponentials in float32 of four numbers that are not positive, from additions and multiplications alone: in target
 * simd the same bits on every machine. They come multiplied by 2^64, so that they are normal as far as e^-110: what is
 * to be multiplied by them or divided is, before `lower` takes the factor away, and a result that is tiny, even
 * subnormal, is rounded there alone.
 */

/**
 * 2^64 e^(high + low), for high + low in [-112, 0] and a small low, |low| < 0.06. NaN gives NaN.
 *
 * Maths   e^x = 2^n e^r, n = x / ln 2 rounded, r = x - n ln 2 (W. J. Cody and W. Waite, Software Manual for the
 *         Elementary Functions, 1980): ln 2 = 355/512 - 0.000212…, n 355/512 is exact and so is its subtraction
 * Error   1.01 ulp for low = 0, largest over all floats from -104; else also |low| 2^-24
 */
// @ts-ignore: decorator
@inline
export function expRaised(high: v128, low: v128): v128 {
  const shifted = madd(high, f32x4.splat(Exp.PER_LN2), f32x4.splat(UNITS));
  const n = f32x4.sub(shifted, f32x4.splat(UNITS));
  const r = madd(n, f32x4.splat(Exp.LN2_LOW), madd(n, f32x4.splat(Exp.LN2_HIGH), high));
  return timesPower(expm1NearZero(f32x4.add(r, low)), shifted);
}

/**
 * 2^64 e^x, for x in [-112, 0], with constants that `constantOf` has made before a loop: in their order here, which is that
 * of `Exp`. NaN gives NaN.
 *
 * Maths   as expRaised, but for n, which is rounded with the exponents' bias on it
 * Error   1.01 ulp
 */
// @ts-ignore: decorator
@inline
export function expOf(
  x: v128, perLn2: v128, units: v128, ln2High: v128, ln2Low: v128, q4: v128, q3: v128, q2: v128, q1: v128, q0: v128,
): v128 {
  const shifted = madd(x, perLn2, units), n = f32x4.sub(shifted, units);
  const r = madd(n, ln2Low, madd(n, ln2High, x)), power = i32x4.shl(shifted, 23);
  const q = madd(madd(madd(madd(q4, r, q3), r, q2), r, q1), r, q0);
  return madd(power, madd(f32x4.mul(r, r), q, r), power);
}

/** A constant in each lane that no compiler knows to be one: engines would make it anew wherever it is used. `unknown`: 0 */
// @ts-ignore: decorator
@inline
export function constantOf(value: f32, unknown: i32): v128 {
  return i32x4.splat(reinterpret<i32>(value) ^ unknown);
}

/** 2^64 2^(high + low), for high + low in [-163, 0], high a multiple of 2^-16 and |low| < 2. NaN gives NaN. */
// @ts-ignore: decorator
@inline
export function exp2Raised(high: v128, low: v128): v128 {
  const shifted = f32x4.add(f32x4.add(high, low), f32x4.splat(UNITS));
  const n = f32x4.sub(shifted, f32x4.splat(UNITS));
  const fraction = f32x4.add(f32x4.sub(high, n), low);
  return timesPower(expm1NearZero(f32x4.mul(fraction, f32x4.splat(0.6931471805599453))), shifted);
}

/** v / 2^64 */
// @ts-ignore: decorator
@inline
export function lower(v: v128): v128 {
  return f32x4.mul(v, f32x4.splat(1 / RAISE));
}

export const RAISE: f32 = 18446744073709551616.0;

export namespace Exp {
  export const PER_LN2: f32 = 1.4426950408889634;
  /** UNITS, and an exponent's bias of 127 + 64. */
  export const UNITS: f32 = 12582912 + 191;
  export const LN2_HIGH: f32 = -355.0 / 512.0;
  export const LN2_LOW: f32 = 0.00021219444005469057;
  export const Q4: f32 = 0.00138133427965;
  export const Q3: f32 = 0.00836932314444;
  export const Q2: f32 = 0.0416684473368;
  export const Q1: f32 = 0.166665155943;
  export const Q0: f32 = 0.499999931058;
}

/** 1.5 2^23, a number whose ulp is 1: what is added to it is rounded to an integer, which its low bits then hold. */
const UNITS: f32 = 12582912;

/** v rounded to a multiple of `unit`, a power of two; |v| < 2^22 unit. */
// @ts-ignore: decorator
@inline
export function roundTo(v: v128, unit: f32): v128 {
  return f32x4.sub(f32x4.add(v, f32x4.splat(UNITS * unit)), f32x4.splat(UNITS * unit));
}

/**
 * e^r - 1 for |r| <= 0.347; at -0.4, where low may lead, the error has grown to 2^-23.7.
 *
 * Maths   r + r² q(r), q of degree 4: the one whose largest error relative to e^r is the least (Remez exchange),
 *         2^-28.2, and 2^-27.6 with coefficients in float32
 */
// @ts-ignore: decorator
@inline
function expm1NearZero(r: v128): v128 {
  let q = madd(f32x4.splat(Exp.Q4), r, f32x4.splat(Exp.Q3));
  q = madd(q, r, f32x4.splat(Exp.Q2));
  q = madd(q, r, f32x4.splat(Exp.Q1));
  q = madd(q, r, f32x4.splat(Exp.Q0));
  return madd(f32x4.mul(r, r), q, r);
}

/** (1 + m) 2^(n + 64), from shifted = UNITS + n: the shift leaves n as an exponent, the addition the bias 127 + 64. */
// @ts-ignore: decorator
@inline
function timesPower(m: v128, shifted: v128): v128 {
  const power = i32x4.add(i32x4.shl(shifted, 23), i32x4.splat((127 + 64) << 23));
  return madd(power, m, power);
}
