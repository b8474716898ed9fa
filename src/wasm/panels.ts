/** Weights as the kernels read them: in panels of neighbouring outputs, one step of the inner loop behind the other. */
import type { Floats, Matrix } from '../types.js';
import { type Layout, panelBytes, type Storage, stepsOf, store } from './formats.js';
import type { Memory } from './memory.js';

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
 * w [n, k] -> panels of W outputs, at `panelsPtr` of a memory that is 0 there. With G inputs in a step, weight (s G + g) of
 * output j of a panel is its element (s W + j) G + g; after the last step come W biases, then the scales and sums of int8.
 * Past the last output, and past the last input, all stays 0.
 */
export function packMatrix(
  { rows: n, cols: k, data }: Matrix,
  storage: Storage,
  memory: Memory,
  panelsPtr: number,
): void {
  const { format, layout, set } = storage;
  const { panelWidth } = set;
  const { array, inputsPerStep: group } = layout;
  const { buffer } = memory.wasmMemory;
  const bytes = panelBytes(k, panelWidth, layout);
  const numStored = stepsOf(k, layout) * group * panelWidth;
  for (let output = 0; output < n; output++) {
    const j = output % panelWidth;
    const start = panelsPtr + ((output - j) / panelWidth) * bytes;
    const { weights, scale, sum } = store(format, data.subarray(output * k, (output + 1) * k));
    const panel = new array(buffer, start, numStored);
    for (let l = 0; l < k; l++) {
      const g = l % group;
      panel[(l - g) * panelWidth + j * group + g] = weights[l];
    }
    const trailer = start + numStored * array.BYTES_PER_ELEMENT;
    if (scale !== undefined) memory.floats(trailer + 4 * panelWidth, panelWidth)[j] = scale;
    if (sum !== undefined) memory.words(trailer + 8 * panelWidth, panelWidth)[j] = sum;
  }
}

/** The bias [n] of such a weight. */
export function packBias(bias: Floats, k: number, storage: Storage, memory: Memory, panelsPtr: number): void {
  const { layout, set } = storage;
  const { panelWidth } = set;
  const bytes = panelBytes(k, panelWidth, layout);
  const numStored = stepsOf(k, layout) * layout.inputsPerStep * panelWidth;
  for (let first = 0; first < bias.length; first += panelWidth) {
    const trailer = panelsPtr + (first / panelWidth) * bytes + numStored * layout.array.BYTES_PER_ELEMENT;
    memory.floats(trailer, panelWidth).set(bias.subarray(first, first + panelWidth));
  }
}

/** float64s of the packed router weight [E, k]. */
export function routerLength(numExperts: number, numInputs: number): number {
  return padded(numExperts, ROUTER_WIDTH) * numInputs;
}

/** Wr [E, k] rounded to float32, in panels of float64: Wr[8p + j, l] at (p · k + l) · 8 + j. */
export function packRouter({ rows: numExperts, cols: k, data }: Matrix, memory: Memory, routerPtr: number): void {
  const into = memory.doubles(routerPtr, routerLength(numExperts, k));
  for (let expert = 0; expert < numExperts; expert++) {
    const j = expert % ROUTER_WIDTH;
    for (let l = 0; l < k; l++) into[(expert - j) * k + l * ROUTER_WIDTH + j] = Math.fround(data[expert * k + l]);
  }
}
