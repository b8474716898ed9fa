import { panelWidth, tile, wideTile } from './tile';

/**
 * The most rows that share the loads of a panel: 4, or in target relaxed also 6, which the host may set where its compiler
 * keeps that tile in registers (V8 from Node 24 on; before, it spills). Of no consequence to the results.
 */
export let tileRows: i32 = 4;

/**
 * Rows of x against panels [firstPanel, lastPanel), panel by panel: a panel stays in the first cache while all rows pass.
 *
 * The arguments are those of `tile`; biasPtr and outPtr are those of panel 0.
 */
// @ts-ignore: decorator
@inline
export function product(
  finish: i32, xPtr: usize, xStride: usize, numRows: i32, k: i32, panelsPtr: usize, biasPtr: usize,
  outPtr: usize, outStride: usize, weightsPtr: usize, firstPanel: i32, lastPanel: i32,
): void {
  const xStep = xStride ? xStride : 4, outStep = outStride ? outStride : 4;
  const panelBytes = <usize>(k * panelWidth << 2);
  // One or two rows past the last full tile wait until four panels are through, and take them at once.
  const wideEnd = lastPanel - (lastPanel - firstPanel & 3);

  for (let panel = firstPanel; panel < lastPanel; panel++) {
    const column = <usize>(panel * panelWidth << 2);
    const w = panelsPtr + <usize>panel * panelBytes, bias = biasPtr + column;
    let x = xPtr, out = outPtr, weights = weightsPtr, left = numRows;
    if (ASC_FEATURE_RELAXED_SIMD && tileRows == 6) {
      for (; left >= 6; left -= 6) {
        tile(6, finish, x, xStride, k, w, bias, out, outStride, column, weights);
        x += 6 * xStep; out += 6 * outStep; weights += 24;
      }
    }
    for (; left >= tileRows; left -= 4) {
      tile(4, finish, x, xStride, k, w, bias, out, outStride, column, weights);
      x += 4 * xStep; out += 4 * outStep; weights += 16;
    }

    if (ASC_FEATURE_RELAXED_SIMD && left == 5) tile(5, finish, x, xStride, k, w, bias, out, outStride, column, weights);
    else if (ASC_FEATURE_RELAXED_SIMD && left == 4) tile(4, finish, x, xStride, k, w, bias, out, outStride, column, weights);
    else if (left == 3) tile(3, finish, x, xStride, k, w, bias, out, outStride, column, weights);
    else if (panel >= wideEnd) {
      if (left == 2) tile(2, finish, x, xStride, k, w, bias, out, outStride, column, weights);
      else if (left == 1) tile(1, finish, x, xStride, k, w, bias, out, outStride, column, weights);
    } else if ((panel - firstPanel & 3) == 3) {
      const w4 = w - 3 * panelBytes, bias4 = bias - 96, column4 = column - 96;
      if (left == 2) {
        wideTile(2, finish, x, xStride, k, w4, bias4, out, outStride, column4, weights);
        wideTile(2, finish, x, xStride, k, w4 + 2 * panelBytes, bias4 + 64, out, outStride, column4 + 64, weights);
      } else if (left == 1) {
        wideTile(1, finish, x, xStride, k, w4, bias4, out, outStride, column4, weights);
      }
    }
  }
}
