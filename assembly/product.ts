import { Format, isHalf, trailerBytes, vectorBytes, widenPanel } from './format';
import { fewRows, tile } from './tile';

/**
 * out = x wᵀ + bias for some rows of x, in the outputs of panels [firstPanel, lastPanel).
 *
 * Shapes  numRows rows x of `steps` steps (of k inputs each 1, with INT8 more) -> as many rows of out, of a float for
 *         each output of the panels
 * Units   xRows, outRows: lists of addresses, one for each row (u32). A panel of W outputs has, step by step, what the
 *         step multiplies: at step l, output j at (l W + j) · bytes; then its trailer (see Format). Past the last output
 *         all is 0
 * Order   each sum is one chain from 0 in order of the inputs, then the bias. So its bits do not depend on the panels'
 *         width, tileRows, the other rows, or the panels it is computed with
 *
 * There are two sets of these kernels. `_8`, for vectors of 128 bits, has panels of eight outputs. `_16` has panels of
 * sixteen, and too many sums for those registers: it is for engines that join neighbouring vectors into 256 bits.
 *
 * tileRows is the most rows that share the loads of a panel: 4, 5 or 6, as many as the engine keeps the sums of in registers.
 * scratchPtr: room for a panel in float32, its biases too, where F16 and BF16 widen it once for more than four rows; the
 * others do not use it.
 */
export function product_f32_8(
  panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize, firstPanel: i32, lastPanel: i32,
  tileRows: i32, scratchPtr: usize,
): void {
  product(Format.F32, 2, panelsPtr, steps, xRows, numRows, outRows, firstPanel, lastPanel, tileRows);
}

export function product_f32_16(
  panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize, firstPanel: i32, lastPanel: i32,
  tileRows: i32, scratchPtr: usize,
): void {
  product(Format.F32, 4, panelsPtr, steps, xRows, numRows, outRows, firstPanel, lastPanel, tileRows);
}

export function product_f16_8(
  panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize, firstPanel: i32, lastPanel: i32,
  tileRows: i32, scratchPtr: usize,
): void {
  if (numRows <= 4) {
    product(Format.F16, 2, panelsPtr, steps, xRows, numRows, outRows, firstPanel, lastPanel, 4);
    return;
  }
  for (let panel = firstPanel; panel < lastPanel; panel++) {
    const widened = widenPanel(Format.F16, 2, panelsPtr, panel, steps, scratchPtr);
    product_f32_8(widened, steps, xRows, numRows, outRows, panel, panel + 1, tileRows, 0);
  }
}

export function product_f16_16(
  panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize, firstPanel: i32, lastPanel: i32,
  tileRows: i32, scratchPtr: usize,
): void {
  if (numRows <= 4) {
    product(Format.F16, 4, panelsPtr, steps, xRows, numRows, outRows, firstPanel, lastPanel, 4);
    return;
  }
  for (let panel = firstPanel; panel < lastPanel; panel++) {
    const widened = widenPanel(Format.F16, 4, panelsPtr, panel, steps, scratchPtr);
    product_f32_16(widened, steps, xRows, numRows, outRows, panel, panel + 1, tileRows, 0);
  }
}

export function product_bf16_8(
  panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize, firstPanel: i32, lastPanel: i32,
  tileRows: i32, scratchPtr: usize,
): void {
  if (numRows <= 4) {
    product(Format.BF16, 2, panelsPtr, steps, xRows, numRows, outRows, firstPanel, lastPanel, 4);
    return;
  }
  for (let panel = firstPanel; panel < lastPanel; panel++) {
    const widened = widenPanel(Format.BF16, 2, panelsPtr, panel, steps, scratchPtr);
    product_f32_8(widened, steps, xRows, numRows, outRows, panel, panel + 1, tileRows, 0);
  }
}

export function product_bf16_16(
  panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize, firstPanel: i32, lastPanel: i32,
  tileRows: i32, scratchPtr: usize,
): void {
  if (numRows <= 4) {
    product(Format.BF16, 4, panelsPtr, steps, xRows, numRows, outRows, firstPanel, lastPanel, 4);
    return;
  }
  for (let panel = firstPanel; panel < lastPanel; panel++) {
    const widened = widenPanel(Format.BF16, 4, panelsPtr, panel, steps, scratchPtr);
    product_f32_16(widened, steps, xRows, numRows, outRows, panel, panel + 1, tileRows, 0);
  }
}

export function product_int8_8(
  panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize, firstPanel: i32, lastPanel: i32,
  tileRows: i32, scratchPtr: usize,
): void {
  product(Format.INT8, 2, panelsPtr, steps, xRows, numRows, outRows, firstPanel, lastPanel, tileRows);
}

export function product_int8_16(
  panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize, firstPanel: i32, lastPanel: i32,
  tileRows: i32, scratchPtr: usize,
): void {
  product(Format.INT8, 4, panelsPtr, steps, xRows, numRows, outRows, firstPanel, lastPanel, tileRows);
}

export function product_int8_dot_8(
  panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize, firstPanel: i32, lastPanel: i32,
  tileRows: i32, scratchPtr: usize,
): void {
  product(Format.INT8_DOT, 2, panelsPtr, steps, xRows, numRows, outRows, firstPanel, lastPanel, tileRows);
}

export function product_int8_dot_16(
  panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize, firstPanel: i32, lastPanel: i32,
  tileRows: i32, scratchPtr: usize,
): void {
  product(Format.INT8_DOT, 4, panelsPtr, steps, xRows, numRows, outRows, firstPanel, lastPanel, tileRows);
}

/** Target simd needs a register for each product: the sums of five rows do not fit beside it. */
const HAS_MORE: bool = ASC_FEATURE_RELAXED_SIMD;

// `format` and `vectors` are constants wherever these are called: each kernel has its own code, without a test of them. Two
// calls in one function would undo that: the optimizer makes one of them.
// @ts-ignore: decorator
@inline
function product(
  format: i32, vectors: i32, panelsPtr: usize, steps: i32, xRows: usize, numRows: i32, outRows: usize,
  firstPanel: i32, lastPanel: i32, tileRows: i32,
): void {
  const stepBytes = vectors * vectorBytes(format), outBytes = <usize>(vectors << 4);
  const panelBytes = <usize>(steps * stepBytes + vectors * trailerBytes(format));
  let w = panelsPtr + <usize>firstPanel * panelBytes, column = <usize>firstPanel * outBytes, panel = firstPanel;

  if (numRows == 1) {
    for (; panel + 4 <= lastPanel; panel += 4, w += 4 * panelBytes, column += 4 * outBytes) {
      fewRows(format, vectors, 1, xRows, w, panelBytes, steps, outRows, column);
    }
  } else if (numRows == 2) {
    for (; panel + 2 <= lastPanel; panel += 2, w += 2 * panelBytes, column += 2 * outBytes) {
      fewRows(format, vectors, 2, xRows, w, panelBytes, steps, outRows, column);
    }
  }
  // All rows against one panel, which stays in the first cache, in tiles of nearly equal height. Each tile calls its share of
  // the next panel to the caches.
  const hasMore = HAS_MORE && !isHalf(format), most = hasMore ? tileRows : min(tileRows, 4), numTiles = (numRows + most - 1) / most;
  const aheadStep = <usize>(stepBytes / max(numTiles, 1)), aheadBytes = <usize>steps * aheadStep;
  for (; panel < lastPanel; panel++, w += panelBytes, column += outBytes) {
    let x = xRows, out = outRows, left = numRows, ahead = panel + 1 < lastPanel ? w + panelBytes : w;
    for (let tilesLeft = numTiles; tilesLeft > 0; tilesLeft--, ahead += aheadBytes) {
      const rows = (left + tilesLeft - 1) / tilesLeft;
      if (hasMore && rows == 6) tile(format, vectors, 6, x, w, steps, ahead, aheadStep, out, column);
      else if (hasMore && rows == 5) tile(format, vectors, 5, x, w, steps, ahead, aheadStep, out, column);
      else if (rows == 4) tile(format, vectors, 4, x, w, steps, ahead, aheadStep, out, column);
      else if (rows == 3) tile(format, vectors, 3, x, w, steps, ahead, aheadStep, out, column);
      else if (rows == 2) tile(format, vectors, 2, x, w, steps, ahead, aheadStep, out, column);
      else tile(format, vectors, 1, x, w, steps, ahead, aheadStep, out, column);
      left -= rows;
      x += <usize>(rows << 2);
      out += <usize>(rows << 2);
    }
  }
}
