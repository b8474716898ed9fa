/** The weights of one layer in WebAssembly memory, as the kernels read them. */
import { row } from '../matrix.js';
import type { Matrix, Weights } from '../types.js';
import { align, type Memory } from './memory.js';
import { packRouter, packWeight, padded, routerLength } from './panels.js';

export interface PackedWeights {
  readonly memory: Memory;
  readonly panelWidth: number;
  readonly dModel: number;
  readonly dFf: number;
  /** Columns of logits: 0 for Hash. */
  readonly numLogits: number;
  readonly routerPtr: number;
  readonly experts: readonly PackedExpert[];
}

/** Addresses. An absent bias is zeros; `gate` is absent where the expert has none. */
export interface PackedExpert {
  readonly up: PackedLinear;
  readonly gate: PackedLinear | undefined;
  readonly down: PackedLinear;
}

export interface PackedLinear {
  readonly panelsPtr: number;
  readonly biasPtr: number;
}

/**
 * Pack weights that passed `checkLayer` into a memory of their own, which is all 0 when it comes.
 *
 * @throws RangeError naming the weight, where a value is beyond float32, or saying how much memory was refused
 */
export function packWeights(
  weights: Weights,
  panelWidth: number,
  newMemory: (numBytes: number) => Memory,
): PackedWeights {
  const { router, up, upBias, gate, gateBias, down, downBias } = weights;
  const { rows: dFf, cols: dModel } = up[0];
  checkRange(weights);
  const ofExpert = (gate ? 2 : 1) * linearBytes(dFf, dModel, panelWidth) + linearBytes(dModel, dFf, panelWidth);
  const routerDoubles = routerLength(router.rows, dModel);
  const memory = newMemory(align(8 * routerDoubles) + up.length * ofExpert);
  const routerPtr = memory.allocate(8 * routerDoubles);
  packRouter(router, memory.doubles(routerPtr, routerDoubles));
  const experts = up.map((_, e) => ({
    up: pack(memory, panelWidth, up[e], upBias, e),
    gate: gate && pack(memory, panelWidth, gate[e], gateBias, e),
    down: pack(memory, panelWidth, down[e], downBias, e),
  }));
  return { memory, panelWidth, dModel, dFf, numLogits: router.rows, routerPtr, experts };
}

function pack(memory: Memory, panelWidth: number, w: Matrix, biases: Matrix | undefined, expert: number): PackedLinear {
  const numOutputs = padded(w.rows, panelWidth);
  const panelsPtr = memory.allocate(4 * numOutputs * w.cols);
  packWeight(w, panelWidth, memory.floats(panelsPtr, numOutputs * w.cols));
  const biasPtr = memory.allocate(4 * numOutputs);
  if (biases) memory.floats(biasPtr, numOutputs).set(row(biases, expert));
  return { panelsPtr, biasPtr };
}

/** Of a packed [n, k] weight and its bias. */
function linearBytes(n: number, k: number, panelWidth: number): number {
  const numOutputs = padded(n, panelWidth);
  return align(4 * numOutputs * k) + align(4 * numOutputs);
}

/** Weights given in float64 may be finite there and infinite in float32. */
function checkRange({ router, up, upBias, gate, gateBias, down, downBias }: Weights): void {
  const named: [string, readonly (Matrix | undefined)[]][] = [
    ['router', [router]],
    ['up', up],
    ['upBias', [upBias]],
    ['gate', gate ?? []],
    ['gateBias', [gateBias]],
    ['down', down],
    ['downBias', [downBias]],
  ];
  for (const [name, matrices] of named) for (const a of matrices) if (a) checkFloat32(`weights.${name}`, a);
}

/** @throws RangeError where a value of a float64 matrix rounds to an infinite float32 */
export function checkFloat32(name: string, { data, cols }: Matrix): void {
  if (data instanceof Float32Array) return;
  for (let i = 0; i < data.length; i++) {
    if (Number.isFinite(Math.fround(data[i]))) continue;
    const place = `[${Math.floor(i / cols)}, ${i % cols}]`;
    throw new RangeError(`"${name}" expected values within float32 (below 3.5e38), got ${data[i]} at ${place}`);
  }
}
