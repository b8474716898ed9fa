import { panelWidth, tile, wideTile } from './tile';

/**
 * The most rows that share the loads of a panel: 4, or 6 in target relaxed, which the host may set where its compiler
 * keeps the sums of that tile in registers (V8 since Node 24; before, it does not). The results are the same.
 */
export let tileRows: i32 = 4;

/**
 * x wᵀ + bias over panels [firstPanel, lastPanel), one after the other: a panel stays in the first cache while all rows
 * of x pass.
 *
 * The arguments are those of `tile`; panelsPtr, biasPtr and outPtr are those of panel 0. The last one or two rows, too few
 * to keep the adders busy, wait until four or two panels have passed and take them at once.
 */
// @ts-ignore: decorator
@inline
export function product(
  finish: i32, xPtr: usize, xStride: usize, numRows: i32, k: i32, panelsPtr: usize, biasPtr: usize,
  outPtr: usize, outStride: usize, weightsPtr: usize, firstPanel: i32, lastPanel: i32,
): void {
  const xStep = xStride ? xStride : 4, outStep = outStride ? outStride : 4;
  const panelBytes = <usize>(k * panelWidth) << 2;
  // The tiles of a panel call the next one, each its share.
  const sixes = ASC_FEATURE_RELAXED_SIMD && tileRows == 6;
  const tiles = sixes ? (numRows + 5) / 6 : (numRows + 3) / 4;
  const step = <usize>((panelWidth << 2) / max(tiles, 1)), aheadBytes = <usize>k * step;
  const wideEnd = lastPanel - ((lastPanel - firstPanel) & 3);

  for (let panel = firstPanel; panel < lastPanel; panel++) {
    const done = panel + 1 - firstPanel;
    const column = <usize>(panel * panelWidth) << 2;
    const w = panelsPtr + <usize>panel * panelBytes, bias = biasPtr + column;
    let ahead = panel + 1 < lastPanel ? w + panelBytes : w;
    let x = xPtr, out = outPtr, weights = weightsPtr, left = numRows;

    if (sixes) {
      for (; left >= 6; left -= 6, x += 6 * xStep, out += 6 * outStep, weights += 24, ahead += aheadBytes) {
        tile(6, finish, x, xStride, k, w, ahead, step, bias, out, outStride, column, weights);
      }
      if (left == 5) {
        tile(5, finish, x, xStride, k, w, ahead, step, bias, out, outStride, column, weights);
        left = 0;
      }
    }
    for (; left >= 4; left -= 4, x += 4 * xStep, out += 4 * outStep, weights += 16, ahead += aheadBytes) {
      tile(4, finish, x, xStride, k, w, ahead, step, bias, out, outStride, column, weights);
    }

    if (left == 3) {
      tile(3, finish, x, xStride, k, w, ahead, step, bias, out, outStride, column, weights);
    } else if (panel >= wideEnd) {
      if (left == 2) tile(2, finish, x, xStride, k, w, ahead, step, bias, out, outStride, column, weights);
      if (left == 1) tile(1, finish, x, xStride, k, w, ahead, step, bias, out, outStride, column, weights);
    } else if (left == 2 && done % 2 == 0) {
      wideTile(2, finish, x, xStride, k, w - panelBytes, bias - 32, out, outStride, column - 32, weights);
    } else if (left == 1 && done % 4 == 0) {
      wideTile(1, finish, x, xStride, k, w - 3 * panelBytes, bias - 96, out, outStride, column - 96, weights);
    }
  }
}
