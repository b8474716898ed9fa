import { panelWidth, tile, tileRows } from './tile';

/**
 * Rows of x against panels [firstPanel, lastPanel) of w, panel by panel: a panel stays in the first cache while all rows pass.
 *
 * The arguments are those of `tile`; biasPtr and outPtr are those of panel 0, strides are in bytes.
 */
// @ts-ignore: decorator
@inline
export function product(
  finish: i32, xPtr: usize, xStride: usize, numRows: i32, k: i32, panelsPtr: usize, biasPtr: usize,
  outPtr: usize, outStride: usize, weightsPtr: usize, firstPanel: i32, lastPanel: i32,
): void {
  const xStep = xStride ? xStride : 4, outStep = outStride ? outStride : 4;
  for (let panel = firstPanel; panel < lastPanel; panel++) {
    const column = <usize>(panel * panelWidth) << 2;
    const w = panelsPtr + column * <usize>k, bias = biasPtr + column;
    let x = xPtr, out = outPtr, weights = weightsPtr;
    let left = numRows;
    while (left >= tileRows) {
      tile(tileRows, finish, x, xStride, k, w, bias, out, outStride, column, weights);
      x += <usize>tileRows * xStep;
      out += <usize>tileRows * outStep;
      weights += <usize>tileRows * 4;
      left -= tileRows;
    }
    if (tileRows > 5 && left == 5) tile(5, finish, x, xStride, k, w, bias, out, outStride, column, weights);
    else if (tileRows > 4 && left == 4) tile(4, finish, x, xStride, k, w, bias, out, outStride, column, weights);
    else if (left == 3) tile(3, finish, x, xStride, k, w, bias, out, outStride, column, weights);
    else if (left == 2) tile(2, finish, x, xStride, k, w, bias, out, outStride, column, weights);
    else if (left == 1) tile(1, finish, x, xStride, k, w, bias, out, outStride, column, weights);
  }
}
