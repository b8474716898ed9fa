/** Weights as the kernels read them: in panels of neighbouring outputs, one step of the inner loop behind the other. */
import type { Floats, Matrix } from '../types.js';

/** Experts of a panel of the router: see `route_f32`. */
const ROUTER_WIDTH = 8;

/** Outputs, filled up to whole panels. */
export function padded(numOutputs: number, panelWidth: number): number {
  return Math.ceil(numOutputs / panelWidth) * panelWidth;
}

/** w [n, k] -> panels: with a width of W, w[p · W + j, l] at (p · k + l) · W + j. Past the last output it stays 0. */
export function packWeight(w: Matrix, panelWidth: number, into: Floats): void {
  const { rows: n, cols: k, data } = w;
  for (let output = 0; output < n; output++) {
    const j = output % panelWidth;
    const start = (output - j) * k + j;
    for (let l = 0; l < k; l++) into[start + l * panelWidth] = data[output * k + l];
  }
}

/** float64s of the packed router weight [E, k]. */
export function routerLength(numExperts: number, numInputs: number): number {
  return padded(numExperts, ROUTER_WIDTH) * numInputs;
}

/** Wr [E, k] rounded to float32, in panels of float64. */
export function packRouter(router: Matrix, into: Float64Array): void {
  packWeight({ ...router, data: Float32Array.from(router.data) }, ROUTER_WIDTH, into);
}
