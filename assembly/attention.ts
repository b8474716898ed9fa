import { constantOf, Exp, expOf } from './exp';
import { highHalf, madd, sumOfPair } from './vector';

/**
 * Causal attention over a cache of keys and values.
 *
 * Cache   of each head, one behind the other, P = contextLength to a multiple of 8, W = headWidth to a multiple of 8:
 *         keys    [P / 8][headWidth][8]      position t, column c at (⌊t/8⌋ headWidth + c) 8 + t mod 8
 *         values  [W / 8][contextLength][8]  position t, column c at (⌊c/8⌋ contextLength + t) 8 + c mod 8
 *         Eight positions, or eight columns, are two vectors side by side, as the outputs of a product's panel are. What lies
 *         past the newest position or past the last column is read, and changes nothing
 * Units   byte addresses, any multiple of 4; strides in floats; heads [firstHead, lastHead). Of a row, head h has the
 *         columns from h · headWidth on, headWidth >= 1 of them
 */

/** Rows that share the loads of keys and values. */
const TILE: i32 = 4;

/** Keys and values of numRows rows into the cache, at the positions from `start` on; row i at kPtr + 4 i stride, and at vPtr. */
export function store_heads_f32(
  kPtr: usize, vPtr: usize, stride: i32, keysPtr: usize, valuesPtr: usize, contextLength: i32, start: i32,
  numRows: i32, headWidth: i32, firstHead: i32, lastHead: i32,
): void {
  const columnsStep = <usize>contextLength << 5;
  for (let head = firstHead; head < lastHead; head++) {
    const keys = keysPtr + <usize>head * keysBytes(contextLength, headWidth);
    const values = valuesPtr + <usize>head * valuesBytes(contextLength, headWidth);
    for (let i = 0; i < numRows; i++) {
      const position = start + i, row = <usize>(i * stride + head * headWidth) << 2;
      let key = keys + (<usize>(position >> 3) * <usize>headWidth << 5) + (<usize>(position & 7) << 2);
      let value = values + (<usize>position << 5), c = 0;
      for (let k = kPtr + row, end = k + (<usize>headWidth << 2); k < end; k += 4, key += 32) store<f32>(key, load<f32>(k));
      let v = vPtr + row;
      for (; c + 8 <= headWidth; c += 8, v += 32, value += columnsStep) {
        const v0 = v128.load(v), v1 = v128.load(v, 16);
        v128.store(value, v1, 16);
        v128.store(value, v0);
      }
      for (; c < headWidth; c++, v += 4, value += 4) store<f32>(value, load<f32>(v));
    }
  }
}

/**
 * out = Σ_j p[j] values[j], p = softmax over j of ⟨q, keys[j]⟩ / √headWidth: row i sees the positions 0 … start + i, which
 * are in the cache.
 *
 * scratchPtr: room for TILE rows of P floats.
 *
 * Order   a product ⟨q, key⟩ is one chain from 0 in order of columns, a sum of values one chain from 0 in order of
 *         positions. The exponentials are added in float32 first, each of an eight's first four positions with the one
 *         four on, and then in float64: four partial sums from 0, by position mod 4; (s0 + s1) + (s2 + s3). So a row's
 *         bits do not depend on the rows or heads beside it
 * Maths   p = e^((score - largest) / √headWidth) · (1 / sum), with 1 / √headWidth and 1 / sum rounded to float32
 * Error   7.2 · 2^-24 p + 2^-148 for p, of the products as they were rounded; spec/model-bounds.ts adds up all of it.
 *         A NaN, or an infinity that is the largest product, makes its row NaN on that head
 */
export function attend_f32(
  qPtr: usize, qStride: i32, keysPtr: usize, valuesPtr: usize, contextLength: i32, outPtr: usize, outStride: i32,
  start: i32, numRows: i32, headWidth: i32, firstHead: i32, lastHead: i32, scratchPtr: usize,
): void {
  const scale: f32 = <f32>(1 / Math.sqrt(<f64>headWidth));
  const qStep = <usize>qStride << 2, outStep = <usize>outStride << 2, scoresStep = scoresBytes(contextLength);
  for (let head = firstHead; head < lastHead; head++) {
    const keys = keysPtr + <usize>head * keysBytes(contextLength, headWidth);
    const values = valuesPtr + <usize>head * valuesBytes(contextLength, headWidth);
    const column = <usize>(head * headWidth) << 2;
    let q = qPtr + column, out = outPtr + column, visible = start + 1, left = numRows;
    for (; left >= TILE; left -= TILE, visible += TILE, q += <usize>TILE * qStep, out += <usize>TILE * outStep) {
      scoresOfFour(q, qStep, keys, groups(visible + TILE - 1), headWidth, scratchPtr, scoresStep);
      for (let i = 0; i < TILE; i++) softmax(scratchPtr + <usize>i * scoresStep, visible + i, scale);
      sumsOfFour(scratchPtr, scoresStep, visible, values, contextLength, headWidth, out, outStep);
    }
    for (; left > 0; left--, visible++, q += qStep, out += outStep) {
      scoresOfOne(q, keys, groups(visible), headWidth, scratchPtr);
      softmax(scratchPtr, visible, scale);
      sumsOfOne(scratchPtr, visible, values, contextLength, headWidth, out);
    }
  }
}

/** How many eights hold so many. */
// @ts-ignore: decorator
@inline
function groups(count: i32): i32 {
  return (count + 7) >> 3;
}

// @ts-ignore: decorator
@inline
function scoresBytes(contextLength: i32): usize {
  return <usize>groups(contextLength) << 5;
}

// @ts-ignore: decorator
@inline
function keysBytes(contextLength: i32, headWidth: i32): usize {
  return scoresBytes(contextLength) * <usize>headWidth;
}

// @ts-ignore: decorator
@inline
function valuesBytes(contextLength: i32, headWidth: i32): usize {
  return <usize>contextLength * (<usize>groups(headWidth) << 5);
}

/** ⟨q, key⟩ of four rows with the positions of so many groups. */
function scoresOfFour(
  q: usize, qStep: usize, keys: usize, numGroups: i32, width: i32, scores: usize, scoresStep: usize,
): void {
  const keysStep = <usize>width << 5, scores1 = scores + scoresStep, scores2 = scores1 + scoresStep;
  const scores3 = scores2 + scoresStep, zero = f32x4.splat(0);
  for (let at: usize = 0, end = <usize>numGroups << 5; at < end; at += 32) {
    let q0 = q, q1 = q0 + qStep, q2 = q1 + qStep, q3 = q2 + qStep;
    let c00 = zero, c01 = zero, c10 = zero, c11 = zero, c20 = zero, c21 = zero, c30 = zero, c31 = zero;
    const keysEnd = keys + keysStep;
    do {
      const k0 = v128.load(keys), k1 = v128.load(keys, 16);
      let x = v128.load32_splat(q0); q0 += 4;
      c00 = madd(x, k0, c00); c01 = madd(x, k1, c01);
      x = v128.load32_splat(q1); q1 += 4;
      c10 = madd(x, k0, c10); c11 = madd(x, k1, c11);
      x = v128.load32_splat(q2); q2 += 4;
      c20 = madd(x, k0, c20); c21 = madd(x, k1, c21);
      x = v128.load32_splat(q3); q3 += 4;
      c30 = madd(x, k0, c30); c31 = madd(x, k1, c31);
      keys += 32;
    } while (keys < keysEnd);
    v128.store(scores + at, c01, 16); v128.store(scores + at, c00);
    v128.store(scores1 + at, c11, 16); v128.store(scores1 + at, c10);
    v128.store(scores2 + at, c21, 16); v128.store(scores2 + at, c20);
    v128.store(scores3 + at, c31, 16); v128.store(scores3 + at, c30);
  }
}

/**
 * The same of one row, which leaves registers for four groups at once: more chains, and more streams of keys.
 *
 * The break is never taken, but no compiler knows: V8 before Node 24 loads all that a block needs at its start, and so much
 * at once does not fit. `sumsOfOne` has one as well.
 */
function scoresOfOne(q: usize, keys: usize, numGroups: i32, width: i32, scores: usize): void {
  const keysStep = <usize>width << 5, zero = f32x4.splat(0);
  for (; numGroups >= 4; numGroups -= 4, scores += 128) {
    let k0 = keys, k1 = k0 + keysStep, k2 = k1 + keysStep, k3 = k2 + keysStep, at = q;
    let c00 = zero, c01 = zero, c10 = zero, c11 = zero, c20 = zero, c21 = zero, c30 = zero, c31 = zero;
    keys = k1;
    do {
      const x = v128.load32_splat(at); at += 4;
      c00 = madd(x, v128.load(k0), c00); c01 = madd(x, v128.load(k0, 16), c01); k0 += 32;
      c10 = madd(x, v128.load(k1), c10); c11 = madd(x, v128.load(k1, 16), c11); k1 += 32;
      if (!k0) break;
      c20 = madd(x, v128.load(k2), c20); c21 = madd(x, v128.load(k2, 16), c21); k2 += 32;
      c30 = madd(x, v128.load(k3), c30); c31 = madd(x, v128.load(k3, 16), c31); k3 += 32;
    } while (k0 < keys);
    keys = k3;
    v128.store(scores, c01, 16); v128.store(scores, c00);
    v128.store(scores, c11, 48); v128.store(scores, c10, 32);
    v128.store(scores, c21, 80); v128.store(scores, c20, 64);
    v128.store(scores, c31, 112); v128.store(scores, c30, 96);
  }
  for (; numGroups > 0; numGroups--, scores += 32) {
    let c0 = zero, c1 = zero, at = q;
    const keysEnd = keys + keysStep;
    do {
      const x = v128.load32_splat(at); at += 4;
      c0 = madd(x, v128.load(keys), c0); c1 = madd(x, v128.load(keys, 16), c1);
      keys += 32;
    } while (keys < keysEnd);
    v128.store(scores, c1, 16); v128.store(scores, c0);
  }
}

/**
 * The first `visible` scores become p, in place; those after them up to a multiple of eight are lost.
 *
 * Maths   e^d, d <= 0, comes multiplied by 2^64 (see exp.ts), and so does the sum: their quotient is p, rounded where it is
 *         subnormal there alone. d is not taken below -104, where p is 0 but for a part of 2^-150: so it is of a score that
 *         is -∞, as those past the visible ones are made, whose parts are lost in the float64 sum
 */
function softmax(scores: usize, visible: i32, scale: f32): void {
  const end = scores + (<usize>groups(visible) << 5);
  for (let rest = scores + (<usize>visible << 2); rest < end; rest += 4) store<f32>(rest, -Infinity);

  let max0 = f32x4.splat(-Infinity), max1 = max0;
  for (let at = scores; at < end; at += 32) {
    max0 = f32x4.pmax(max0, v128.load(at));
    max1 = f32x4.pmax(max1, v128.load(at, 16));
  }
  max0 = f32x4.pmax(max0, max1);
  max0 = f32x4.pmax(max0, highHalf(max0));
  const largest = f32x4.splat(max(f32x4.extract_lane(max0, 0), f32x4.extract_lane(max0, 1)));

  const scales = f32x4.splat(scale), unknown = visible >> 31, limit = constantOf(-104, unknown);
  const perLn2 = constantOf(Exp.PER_LN2, unknown), units = constantOf(Exp.UNITS, unknown);
  const ln2High = constantOf(Exp.LN2_HIGH, unknown), ln2Low = constantOf(Exp.LN2_LOW, unknown);
  const q4 = constantOf(Exp.Q4, unknown), q3 = constantOf(Exp.Q3, unknown), q2 = constantOf(Exp.Q2, unknown);
  const q1 = constantOf(Exp.Q1, unknown), q0 = constantOf(Exp.Q0, unknown);
  let s0 = f64x2.splat(0), s1 = s0;
  for (let at = scores; at < end; at += 32) {
    const d0 = f32x4.pmax(f32x4.mul(f32x4.sub(v128.load(at), largest), scales), limit);
    const d1 = f32x4.pmax(f32x4.mul(f32x4.sub(v128.load(at, 16), largest), scales), limit);
    const e0 = expOf(d0, perLn2, units, ln2High, ln2Low, q4, q3, q2, q1, q0);
    const e1 = expOf(d1, perLn2, units, ln2High, ln2Low, q4, q3, q2, q1, q0);
    v128.store(at, e1, 16);
    v128.store(at, e0);
    const e = f32x4.add(e0, e1);
    s0 = f64x2.add(s0, f64x2.promote_low_f32x4(e));
    s1 = f64x2.add(s1, f64x2.promote_low_f32x4(highHalf(e)));
  }
  const perSum = f32x4.splat(<f32>(1 / (sumOfPair(s0) + sumOfPair(s1))));

  for (let at = scores; at < end; at += 32) {
    const p0 = f32x4.mul(v128.load(at), perSum), p1 = f32x4.mul(v128.load(at, 16), perSum);
    v128.store(at, p1, 16);
    v128.store(at, p0);
  }
}

/** Σ p v of four rows, of which the first sees `visible` positions, and each of the next one more. */
function sumsOfFour(
  probs: usize, probsStep: usize, visible: i32, values: usize, contextLength: i32, width: i32, out: usize,
  outStep: usize,
): void {
  const zero = f32x4.splat(0), columnsStep = <usize>contextLength << 5, sharedBytes = <usize>visible << 5;
  for (; width > 0; width -= 8, out += 32, values += columnsStep) {
    let p0 = probs, p1 = p0 + probsStep, p2 = p1 + probsStep, p3 = p2 + probsStep, v = values;
    let c00 = zero, c01 = zero, c10 = zero, c11 = zero, c20 = zero, c21 = zero, c30 = zero, c31 = zero;
    const end = v + sharedBytes;
    do {
      const v0 = v128.load(v), v1 = v128.load(v, 16);
      let p = v128.load32_splat(p0); p0 += 4;
      c00 = madd(p, v0, c00); c01 = madd(p, v1, c01);
      p = v128.load32_splat(p1); p1 += 4;
      c10 = madd(p, v0, c10); c11 = madd(p, v1, c11);
      p = v128.load32_splat(p2); p2 += 4;
      c20 = madd(p, v0, c20); c21 = madd(p, v1, c21);
      p = v128.load32_splat(p3); p3 += 4;
      c30 = madd(p, v0, c30); c31 = madd(p, v1, c31);
      v += 32;
    } while (v < end);
    // The positions that not all rows see.
    let v0 = v128.load(v), v1 = v128.load(v, 16), p = v128.load32_splat(p1);
    c10 = madd(p, v0, c10); c11 = madd(p, v1, c11);
    p = v128.load32_splat(p2);
    c20 = madd(p, v0, c20); c21 = madd(p, v1, c21);
    p = v128.load32_splat(p3);
    c30 = madd(p, v0, c30); c31 = madd(p, v1, c31);
    v0 = v128.load(v, 32); v1 = v128.load(v, 48); p = v128.load32_splat(p2, 4);
    c20 = madd(p, v0, c20); c21 = madd(p, v1, c21);
    p = v128.load32_splat(p3, 4);
    c30 = madd(p, v0, c30); c31 = madd(p, v1, c31);
    p = v128.load32_splat(p3, 8);
    c30 = madd(p, v128.load(v, 64), c30); c31 = madd(p, v128.load(v, 80), c31);

    storeColumns(out, width, c00, c01);
    storeColumns(out + outStep, width, c10, c11);
    storeColumns(out + 2 * outStep, width, c20, c21);
    storeColumns(out + 3 * outStep, width, c30, c31);
  }
}

/** The same of one row: 32 columns at once, then eight. */
function sumsOfOne(probs: usize, visible: i32, values: usize, contextLength: i32, width: i32, out: usize): void {
  const zero = f32x4.splat(0), columnsStep = <usize>contextLength << 5, probsEnd = probs + (<usize>visible << 2);
  for (; width >= 32; width -= 32, out += 128, values += columnsStep << 2) {
    let v0 = values, v1 = v0 + columnsStep, v2 = v1 + columnsStep, v3 = v2 + columnsStep, at = probs;
    let c00 = zero, c01 = zero, c10 = zero, c11 = zero, c20 = zero, c21 = zero, c30 = zero, c31 = zero;
    do {
      const p = v128.load32_splat(at); at += 4;
      c00 = madd(p, v128.load(v0), c00); c01 = madd(p, v128.load(v0, 16), c01); v0 += 32;
      c10 = madd(p, v128.load(v1), c10); c11 = madd(p, v128.load(v1, 16), c11); v1 += 32;
      if (!v0) break;
      c20 = madd(p, v128.load(v2), c20); c21 = madd(p, v128.load(v2, 16), c21); v2 += 32;
      c30 = madd(p, v128.load(v3), c30); c31 = madd(p, v128.load(v3, 16), c31); v3 += 32;
    } while (at < probsEnd);
    v128.store(out, c01, 16); v128.store(out, c00);
    v128.store(out, c11, 48); v128.store(out, c10, 32);
    v128.store(out, c21, 80); v128.store(out, c20, 64);
    v128.store(out, c31, 112); v128.store(out, c30, 96);
  }
  for (; width > 0; width -= 8, out += 32, values += columnsStep) {
    let c0 = zero, c1 = zero, at = probs, v = values;
    do {
      const p = v128.load32_splat(at); at += 4;
      c0 = madd(p, v128.load(v), c0); c1 = madd(p, v128.load(v, 16), c1);
      v += 32;
    } while (at < probsEnd);
    storeColumns(out, width, c0, c1);
  }
}

/** The first `count` of eight columns. */
// @ts-ignore: decorator
@inline
function storeColumns(out: usize, count: i32, low: v128, high: v128): void {
  if (count >= 8) {
    v128.store(out, high, 16);
    v128.store(out, low);
  } else {
    storeSome(out, count, low, high);
  }
}

function storeSome(out: usize, count: i32, low: v128, high: v128): void {
  if (count & 4) {
    v128.store(out, low);
    out += 16;
    low = high;
  }
  if (count & 2) {
    v128.store64_lane(out, low, 0);
    out += 8;
    low = highHalf(low);
  }
  if (count & 1) v128.store32_lane(out, low, 0);
}
