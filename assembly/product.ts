import { Format, trailerBytes, vectorBytes } from './format';
import { fewRows, tile } from './tile';

/**
 * s = x wᵀ + bias for some rows of x, in the outputs of panels [firstPanel, lastPanel); `finish` says what becomes of s.
 *
 * Shapes  numRows rows x of `steps` steps, weights of k inputs -> out rows of as many floats as the panels have outputs
 * Units   xRows, outRows: lists of addresses, one for each row (u32). weightsPtr: a float32 for each row, which
 *         Finish.ADD_WEIGHTED alone reads. A panel of W outputs is, step by step, the weights of its outputs (see
 *         Format: at step l, output j at (l W + j) · bytes), then W biases in float32; past the last output all are 0
 * Order   each sum is one chain from 0 in order of the inputs, then the bias. So its bits do not depend on panelWidth,
 *         tileRows, the other rows, or the panels it is computed with
 *
 * There are two sets of these kernels. `_8`, for vectors of 128 bits, has panels of eight outputs. `_16` has panels of
 * sixteen, and too many sums for those registers: it is for engines that join neighbouring vectors into 256 bits.
 *
 * tileRows is the most rows that share the loads of a panel: 4, or 6 where the engine keeps so many sums in registers.
 */
export function product_f32_8(
  panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize, weightsPtr: usize,
  firstPanel: i32, lastPanel: i32, finish: i32, tileRows: i32,
): void {
  product(Format.F32, 2, panelsPtr, steps, xRows, numRows, outRows, weightsPtr, firstPanel, lastPanel, finish, tileRows);
}

export function product_f32_16(
  panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize, weightsPtr: usize,
  firstPanel: i32, lastPanel: i32, finish: i32, tileRows: i32,
): void {
  product(Format.F32, 4, panelsPtr, steps, xRows, numRows, outRows, weightsPtr, firstPanel, lastPanel, finish, tileRows);
}

/** Target simd needs a register for each product: the sums of six rows do not fit beside it. */
const HAS_SIXES: bool = ASC_FEATURE_RELAXED_SIMD;

/** Panel after panel: one stays in the first cache while all rows of x pass, in tiles of nearly equal height. */
// @ts-ignore: decorator
@inline
function product(
  format: i32, vectors: i32, panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize, weightsPtr: usize,
  firstPanel: i32, lastPanel: i32, finish: i32, tileRows: i32,
): void {
  const stepBytes = vectors * vectorBytes(format), panelBytes = <usize>(steps * stepBytes + vectors * trailerBytes(format));
  const outBytes = <usize>(vectors << 4);
  let w = panelsPtr + <usize>firstPanel * panelBytes, column = <usize>firstPanel * outBytes, panel = firstPanel;

  if (numRows == 1) {
    for (; panel + 4 <= lastPanel; panel += 4, w += 4 * panelBytes, column += 4 * outBytes) {
      fewRows(format, vectors, 1, finish, xRows, w, panelBytes, steps, outRows, column, weightsPtr);
    }
  } else if (numRows == 2) {
    for (; panel + 2 <= lastPanel; panel += 2, w += 2 * panelBytes, column += 2 * outBytes) {
      fewRows(format, vectors, 2, finish, xRows, w, panelBytes, steps, outRows, column, weightsPtr);
    }
  }

  // The tiles of a panel call the next one to the caches, each its share.
  const most = HAS_SIXES ? tileRows : min(tileRows, 4), tiles = (numRows + most - 1) / most;
  const aheadStep = <usize>(stepBytes / max(tiles, 1)), aheadBytes = <usize>steps * aheadStep;
  for (; panel < lastPanel; panel++, w += panelBytes, column += outBytes) {
    let x = xRows, out = outRows, weights = weightsPtr;
    let ahead = panel + 1 < lastPanel ? w + panelBytes : w;
    for (let left = numRows, tilesLeft = tiles; tilesLeft > 0; tilesLeft--, ahead += aheadBytes) {
      const rows = (left + tilesLeft - 1) / tilesLeft;
      if (HAS_SIXES && rows == 6) {
        tile(format, vectors, 6, finish, x, w, steps, ahead, aheadStep, out, column, weights);
      } else if (HAS_SIXES && rows == 5) {
        tile(format, vectors, 5, finish, x, w, steps, ahead, aheadStep, out, column, weights);
      } else if (rows == 4) {
        tile(format, vectors, 4, finish, x, w, steps, ahead, aheadStep, out, column, weights);
      } else if (rows == 3) {
        tile(format, vectors, 3, finish, x, w, steps, ahead, aheadStep, out, column, weights);
      } else if (rows == 2) {
        tile(format, vectors, 2, finish, x, w, steps, ahead, aheadStep, out, column, weights);
      } else {
        tile(format, vectors, 1, finish, x, w, steps, ahead, aheadStep, out, column, weights);
      }
      left -= rows;
      const bytes = <usize>(rows << 2);
      x += bytes;
      out += bytes;
      weights += bytes;
    }
  }
}
