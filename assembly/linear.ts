/**
 * y = x wᵀ + bias in float32: the product of every linear layer, whose weights are [out, in].
 *
 * Shapes  x [n, k], w [m, k], bias [m] -> y [n, m], dense and row-major; y overlaps nothing. biasPtr 0: no bias
 * Units   xPtr, wPtr, biasPtr, yPtr are byte addresses, any multiple of 4; n, m, k count elements, from 0
 * Order   y[i, j] is four partial sums from 0, the q-th over x[i, l] w[j, l] of l = q, q + 4, … below k - k mod 4;
 *         then (s0 + s1) + (s2 + s3), the products of the last k mod 4 one by one, and the bias
 * Error   |y - exact| <= (k + 2) 2^-24 (Σ |x| |w| + |bias|), underflow aside
 *
 * Two rows by four outputs share their loads: eight sums, enough to hide the latency of an addition. Past the last row
 * or output a tile repeats that row or output, and writes its bits again. So each element is computed in one way only,
 * and does not depend on n or m.
 */
export function linear_f32(xPtr: usize, wPtr: usize, biasPtr: usize, yPtr: usize, n: i32, m: i32, k: i32): void {
  // A block of four rows of w stays in the first cache while all of x passes.
  for (let j = 0; j < m; j += 4) {
    const j1 = min(j + 1, m - 1), j2 = min(j + 2, m - 1), j3 = min(j + 3, m - 1);
    for (let i = 0; i < n; i += 2) {
      const i1 = min(i + 1, n - 1);
      let x0 = at(xPtr, i * k), x1 = at(xPtr, i1 * k);
      let w0 = at(wPtr, j * k), w1 = at(wPtr, j1 * k), w2 = at(wPtr, j2 * k), w3 = at(wPtr, j3 * k);
      const foursEnd = at(x0, k & ~3), end = at(x0, k);

      let v00 = f32x4.splat(0), v01 = v00, v02 = v00, v03 = v00;
      let v10 = v00, v11 = v00, v12 = v00, v13 = v00;
      while (x0 < foursEnd) {
        const a0 = v128.load(x0), a1 = v128.load(x1);
        const b0 = v128.load(w0), b1 = v128.load(w1), b2 = v128.load(w2), b3 = v128.load(w3);
        v00 = madd(a0, b0, v00); v01 = madd(a0, b1, v01); v02 = madd(a0, b2, v02); v03 = madd(a0, b3, v03);
        v10 = madd(a1, b0, v10); v11 = madd(a1, b1, v11); v12 = madd(a1, b2, v12); v13 = madd(a1, b3, v13);
        x0 += 16; x1 += 16;
        w0 += 16; w1 += 16; w2 += 16; w3 += 16;
      }

      let s00 = sumLanes(v00), s01 = sumLanes(v01), s02 = sumLanes(v02), s03 = sumLanes(v03);
      let s10 = sumLanes(v10), s11 = sumLanes(v11), s12 = sumLanes(v12), s13 = sumLanes(v13);
      while (x0 < end) {
        const a0 = load<f32>(x0), a1 = load<f32>(x1);
        const b0 = load<f32>(w0), b1 = load<f32>(w1), b2 = load<f32>(w2), b3 = load<f32>(w3);
        s00 += a0 * b0; s01 += a0 * b1; s02 += a0 * b2; s03 += a0 * b3;
        s10 += a1 * b0; s11 += a1 * b1; s12 += a1 * b2; s13 += a1 * b3;
        x0 += 4; x1 += 4;
        w0 += 4; w1 += 4; w2 += 4; w3 += 4;
      }

      if (biasPtr) {
        const c0 = load<f32>(at(biasPtr, j)), c1 = load<f32>(at(biasPtr, j1));
        const c2 = load<f32>(at(biasPtr, j2)), c3 = load<f32>(at(biasPtr, j3));
        s00 += c0; s01 += c1; s02 += c2; s03 += c3;
        s10 += c0; s11 += c1; s12 += c2; s13 += c3;
      }
      const y0 = at(yPtr, i * m), y1 = at(yPtr, i1 * m);
      store<f32>(at(y0, j), s00); store<f32>(at(y0, j1), s01); store<f32>(at(y0, j2), s02); store<f32>(at(y0, j3), s03);
      store<f32>(at(y1, j), s10); store<f32>(at(y1, j1), s11); store<f32>(at(y1, j2), s12); store<f32>(at(y1, j3), s13);
    }
  }
}

/** The address of element `index` of the float32s at `ptr`. */
// @ts-ignore: decorator
@inline
function at(ptr: usize, index: i32): usize {
  return ptr + (<usize>index << 2);
}

/** a * b + c, rounded twice in target simd; rounded once in target relaxed where the machine has a fused instruction. */
// @ts-ignore: decorator
@inline
function madd(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c);
}

/** The lanes of `v`, added in this order. */
// @ts-ignore: decorator
@inline
function sumLanes(v: v128): f32 {
  const low = f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1);
  const high = f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3);
  return low + high;
}
