/** Weights as the kernels read them: in panels of neighbouring outputs, one step of the inner loop behind the other. */
import type { Matrix } from '../types.js';

/** Experts of a panel of the router: see `route_f32`. */
const ROUTER_WIDTH = 4;

/** Outputs, filled up to whole panels. */
export function padded(numOutputs: number, panelWidth: number): number {
  return Math.ceil(numOutputs / panelWidth) * panelWidth;
}

/** w [n, k] -> panels: with a width of W, w[p · W + j, l] at (p · k + l) · W + j. Past the last output it stays 0. */
export function packWeight(w: Matrix, panelWidth: number, into: Float32Array): void {
  const { rows: n, cols: k, data } = w;
  for (let output = 0; output < n; output++) {
    const j = output % panelWidth;
    const start = (output - j) * k + j;
    for (let l = 0; l < k; l++) into[start + l * panelWidth] = data[output * k + l];
  }
}

/** float64s of the packed router weight [E, k]. */
export function routerLength(numExperts: number, numInputs: number): number {
  return Math.ceil(numExperts / ROUTER_WIDTH) * ROUTER_WIDTH * 2 * Math.ceil(numInputs / 2);
}

/** Wr [E, k] -> panels of float64: Wr[4p + j, 2h + q] at p · 8⌈k/2⌉ + 8h + 2j + q, zeros past the last expert and input. */
export function packRouter(router: Matrix, into: Float64Array): void {
  const { rows: numExperts, cols: k, data } = router;
  const panelLength = 2 * ROUTER_WIDTH * Math.ceil(k / 2);
  for (let e = 0; e < numExperts; e++) {
    const start = Math.floor(e / ROUTER_WIDTH) * panelLength + 2 * (e % ROUTER_WIDTH);
    for (let l = 0; l < k; l++) into[start + (l >> 1) * 2 * ROUTER_WIDTH + (l & 1)] = Math.fround(data[e * k + l]);
  }
}
