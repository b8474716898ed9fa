/** Weights as the kernels read them: in panels of neighbouring outputs, one step of the inner loop behind the other. */
import type { Floats, Matrix } from '../types.js';
import { type ExpertFormat, type Layout, panelBytes, stepsOf, store } from './formats.js';

/** Experts of a panel of the router: see `route_f32`. */
const ROUTER_WIDTH = 8;

/** Outputs, filled up to whole panels. */
export function padded(numOutputs: number, panelWidth: number): number {
  return Math.ceil(numOutputs / panelWidth) * panelWidth;
}

/** Bytes of a packed [n, k] weight with its bias. */
export function linearBytes(n: number, k: number, panelWidth: number, layout: Layout): number {
  return (padded(n, panelWidth) / panelWidth) * panelBytes(k, panelWidth, layout);
}

/**
 * w [n, k] and its bias [n] -> panels of W outputs. With G inputs in a step, weight (s G + g) of output j of a panel is its
 * element (s W + j) G + g; after the last step come W biases, then the scales and sums of int8. Past the last output, and
 * past the last input, all stays 0.
 *
 * @param into bytes that are 0, from a multiple of 4 on
 */
export function packLinear(
  w: Matrix,
  bias: Floats | undefined,
  format: ExpertFormat,
  layout: Layout,
  panelWidth: number,
  into: Uint8Array,
): void {
  const { rows: n, cols: k, data } = w;
  const { array, inputsPerStep: group } = layout;
  const bytes = panelBytes(k, panelWidth, layout);
  const numStored = stepsOf(k, layout) * group * panelWidth;
  for (let output = 0; output < n; output++) {
    const j = output % panelWidth;
    const start = into.byteOffset + ((output - j) / panelWidth) * bytes;
    const { weights, scale, sum } = store(format, data.subarray(output * k, (output + 1) * k));
    const panel = new array(into.buffer, start, numStored);
    for (let l = 0; l < k; l++) {
      const g = l % group;
      panel[(l - g) * panelWidth + j * group + g] = weights[l];
    }
    const trailer = new DataView(into.buffer, start + numStored * array.BYTES_PER_ELEMENT);
    if (bias) trailer.setFloat32(4 * j, bias[output], true);
    if (scale !== undefined) trailer.setFloat32(4 * (panelWidth + j), scale, true);
    if (sum !== undefined) trailer.setInt32(4 * (2 * panelWidth + j), sum, true);
  }
}

/** float64s of the packed router weight [E, k]. */
export function routerLength(numExperts: number, numInputs: number): number {
  return padded(numExperts, ROUTER_WIDTH) * numInputs;
}

/** Wr [E, k] rounded to float32, in panels of float64: Wr[8p + j, l] at (p · k + l) · 8 + j. */
export function packRouter({ rows: numExperts, cols: k, data }: Matrix, into: Float64Array): void {
  for (let expert = 0; expert < numExperts; expert++) {
    const j = expert % ROUTER_WIDTH;
    for (let l = 0; l < k; l++) into[(expert - j) * k + l * ROUTER_WIDTH + j] = Math.fround(data[expert * k + l]);
  }
}
