import { madd } from './vector';

/** y[targets[i]] += weights[i] * out[i], n elements each: the bits of a product that adds, from what one stored. */
export function combine_f32(
  outPtr: usize, outStride: i32, weightsPtr: usize, targetsPtr: usize, numRows: i32, n: i32,
): void {
  for (let i = 0; i < numRows; i++) {
    const weight = v128.load32_splat(weightsPtr + (<usize>i << 2));
    let out = outPtr + (<usize>(i * outStride) << 2);
    let y = <usize>load<u32>(targetsPtr + (<usize>i << 2));
    const eightsEnd = y + (<usize>(n & ~7) << 2), end = y + (<usize>n << 2);
    for (; y < eightsEnd; y += 32, out += 32) {
      const sum0 = madd(weight, v128.load(out), v128.load(y)), sum1 = madd(weight, v128.load(out, 16), v128.load(y, 16));
      v128.store(y, sum1, 16);
      v128.store(y, sum0);
    }
    // One lane of the same instruction: a scalar product would not be fused.
    for (; y < end; y += 4, out += 4) {
      v128.store32_lane(y, madd(weight, v128.load32_zero(out), v128.load32_zero(y)), 0);
    }
  }
}
