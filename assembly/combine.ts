import { madd } from './vector';

/**
 * y[i, c] += weights[i] * out[i, c], row after row, in columns [first, last).
 *
 * Units   outRows, yRows: lists of addresses (u32); rows of y may be the same. weightsPtr: a float32 for each row
 */
export function combine_f32(
  outRows: usize, weightsPtr: usize, yRows: usize, numRows: i32, first: i32, last: i32,
): void {
  const skipped = <usize>first << 2, eightsBytes = <usize>((last - first) & ~7) << 2;
  for (const end = outRows + (<usize>numRows << 2); outRows < end; outRows += 4, yRows += 4, weightsPtr += 4) {
    const weight = v128.load32_splat(weightsPtr);
    const rowEnd = <usize>load<u32>(yRows) + (<usize>last << 2);
    let out = <usize>load<u32>(outRows) + skipped, y = <usize>load<u32>(yRows) + skipped;
    for (const eightsEnd = y + eightsBytes; y < eightsEnd; y += 32, out += 32) {
      const sum0 = madd(weight, v128.load(out), v128.load(y)), sum1 = madd(weight, v128.load(out, 16), v128.load(y, 16));
      v128.store(y, sum1, 16);
      v128.store(y, sum0);
    }
    // One lane of the same instruction: a scalar product would not be fused.
    for (; y < rowEnd; y += 4, out += 4) {
      v128.store32_lane(y, madd(weight, v128.load32_zero(out), v128.load32_zero(y)), 0);
    }
  }
}
