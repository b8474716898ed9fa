/** Weights as the kernels read them: in panels of neighbouring outputs, one step of the inner loop behind the other. */
import type { Floats, Matrix } from '../types.js';

/** Experts of a panel of the router: see `route_f32`. */
const ROUTER_WIDTH = 8;

/** Outputs, filled up to whole panels. */
export function padded(numOutputs: number, panelWidth: number): number {
  return Math.ceil(numOutputs / panelWidth) * panelWidth;
}

/** Floats of a packed [n, k] weight with its bias. */
export function linearLength(n: number, k: number, panelWidth: number): number {
  return padded(n, panelWidth) * (k + 1);
}

/**
 * w [n, k] and its bias [n] -> panels of W outputs: of output p · W + j, weight l is at (p · (k + 1) + l) · W + j, and the
 * bias is where weight k would be. Past the last output it stays 0.
 */
export function packLinear(w: Matrix, bias: Floats | undefined, panelWidth: number, into: Floats): void {
  const { rows: n, cols: k } = w;
  for (let output = 0; output < n; output++) {
    const j = output % panelWidth;
    const start = (output - j) * (k + 1) + j;
    packRow(w, output, into, start, panelWidth);
    if (bias) into[start + k * panelWidth] = bias[output];
  }
}

/** float64s of the packed router weight [E, k]. */
export function routerLength(numExperts: number, numInputs: number): number {
  return padded(numExperts, ROUTER_WIDTH) * numInputs;
}

/** Wr [E, k] rounded to float32, in panels of float64: Wr[8p + j, l] at (p · k + l) · 8 + j. */
export function packRouter(router: Matrix, into: Float64Array): void {
  const rounded = { ...router, data: Float32Array.from(router.data) };
  for (let expert = 0; expert < router.rows; expert++) {
    const j = expert % ROUTER_WIDTH;
    packRow(rounded, expert, into, (expert - j) * router.cols + j, ROUTER_WIDTH);
  }
}

/** A row of w, its elements `step` apart. */
function packRow({ data, cols }: Matrix, i: number, into: Floats, start: number, step: number): void {
  for (let l = 0; l < cols; l++) into[start + l * step] = data[i * cols + l];
}
