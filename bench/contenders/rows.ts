/** The rows of one expert, into it and out of it, for those who run experts one at a time. */
import type { DispatchPlan, Matrix } from 'xmoe';

/** The rows that expert e was given, copied one after the other. */
export function gatherExpert(x: Matrix, { tokenIndex, expertOffsets }: DispatchPlan, e: number) {
  const rows = expertOffsets[e + 1] - expertOffsets[e];
  const data = new Float32Array(rows * x.cols);
  for (let i = 0; i < rows; i++) {
    const from = tokenIndex[expertOffsets[e] + i] * x.cols;
    data.set(x.data.subarray(from, from + x.cols), i * x.cols);
  }
  return { rows, cols: x.cols, data };
}

/** y += weight · out, row by row, for what expert e made of its rows. */
export function scatterExpert(y: Float32Array, out: Float32Array, plan: DispatchPlan, e: number): void {
  const { tokenIndex, expertOffsets, combineWeight } = plan;
  const rows = expertOffsets[e + 1] - expertOffsets[e];
  const cols = rows && out.length / rows;
  for (let i = 0; i < rows; i++) {
    const row = expertOffsets[e] + i;
    const [into, from, weight] = [tokenIndex[row] * cols, i * cols, combineWeight[row]];
    for (let c = 0; c < cols; c++) y[into + c] += weight * out[from + c];
  }
}
