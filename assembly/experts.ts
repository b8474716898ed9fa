import { activate_f32 } from './elementary';
import { product } from './product';
import { Finish } from './finish';
import { panelWidth } from './tile';
import { madd } from './vector';

/**
 * hidden = σ(x w1ᵀ + b1): an expert's first product, over the rows it was given.
 *
 * Shapes  numRows rows x [k], packed w1 of numPanels panels, bias [numPanels * panelWidth]
 *         -> hidden [numRows, numPanels * panelWidth]; k >= 1
 * Units   rowsPtr: one address for each row (u32); the others address float32s; lengths count elements. A panel is
 *         k times panelWidth weights: w1[p * panelWidth + j][l] at l * panelWidth + j, 0 past the last output
 * Order   each sum is one chain from 0 in order of l, then the bias; activation is an id of elementary.ts
 */
export function up_f32(
  rowsPtr: usize, numRows: i32, panelsPtr: usize, biasPtr: usize, hiddenPtr: usize,
  k: i32, numPanels: i32, activation: i32,
): void {
  const width = numPanels * panelWidth;
  product(Finish.STORE, rowsPtr, 0, numRows, k, panelsPtr, biasPtr, hiddenPtr, <usize>width << 2, 0, 0, numPanels);
  activate_f32(hiddenPtr, hiddenPtr, numRows * width, activation);
}

/** hidden = σ(x wgᵀ + bg) ⊙ (x w1ᵀ + b1): the same for a gated expert. */
export function up_gated_f32(
  rowsPtr: usize, numRows: i32, panelsPtr: usize, biasPtr: usize, gatePanelsPtr: usize, gateBiasPtr: usize,
  hiddenPtr: usize, k: i32, numPanels: i32, activation: i32,
): void {
  up_f32(rowsPtr, numRows, gatePanelsPtr, gateBiasPtr, hiddenPtr, k, numPanels, activation);
  const stride = <usize>(numPanels * panelWidth) << 2;
  product(Finish.MULTIPLY, rowsPtr, 0, numRows, k, panelsPtr, biasPtr, hiddenPtr, stride, 0, 0, numPanels);
}

/** out = hidden w2ᵀ + b2, in the columns of panels [firstPanel, lastPanel): an expert's second product. */
export function down_f32(
  hiddenPtr: usize, hiddenStride: i32, numRows: i32, panelsPtr: usize, biasPtr: usize, outPtr: usize, outStride: i32,
  k: i32, firstPanel: i32, lastPanel: i32,
): void {
  product(
    Finish.STORE, hiddenPtr, <usize>hiddenStride << 2, numRows, k, panelsPtr, biasPtr,
    outPtr, <usize>outStride << 2, 0, firstPanel, lastPanel,
  );
}

/** y[targets[i]] += weights[i] * (hidden[i] w2ᵀ + b2): the same, straight into y. targets are addresses of rows (u32). */
export function down_combine_f32(
  hiddenPtr: usize, hiddenStride: i32, numRows: i32, panelsPtr: usize, biasPtr: usize,
  weightsPtr: usize, targetsPtr: usize, k: i32, firstPanel: i32, lastPanel: i32,
): void {
  product(
    Finish.ADD_WEIGHTED, hiddenPtr, <usize>hiddenStride << 2, numRows, k, panelsPtr, biasPtr,
    targetsPtr, 0, weightsPtr, firstPanel, lastPanel,
  );
}

/** y[targets[i]] += weights[i] * out[i], n elements each: the bits of down_combine_f32, from what down_f32 stored. */
export function combine_f32(
  outPtr: usize, outStride: i32, weightsPtr: usize, targetsPtr: usize, numRows: i32, n: i32,
): void {
  for (let i = 0; i < numRows; i++) {
    const weight = v128.load32_splat(weightsPtr + (<usize>i << 2));
    let out = outPtr + (<usize>(i * outStride) << 2);
    let y = <usize>load<u32>(targetsPtr + (<usize>i << 2));
    const foursEnd = y + (<usize>(n & ~3) << 2), end = y + (<usize>n << 2);
    for (; y < foursEnd; y += 16, out += 16) v128.store(y, madd(weight, v128.load(out), v128.load(y)));
    // One lane of the same instruction: a scalar product would not be fused.
    for (; y < end; y += 4, out += 4) {
      v128.store32_lane(y, madd(weight, v128.load32_zero(out), v128.load32_zero(y)), 0);
    }
  }
}
