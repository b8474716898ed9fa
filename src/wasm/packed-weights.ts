/** The weights of one layer in WebAssembly memory, as the kernels read them. */
import { row } from '../matrix.js';
import type { Matrix, Weights } from '../types.js';
import type { KernelSet } from './kernels.js';
import { align, type Memory } from './memory.js';
import { linearLength, packLinear, packRouter, padded, routerLength } from './panels.js';

export interface PackedWeights {
  readonly memory: Memory;
  /** The kernels that they are packed for. */
  readonly set: KernelSet;
  readonly dModel: number;
  readonly dFf: number;
  /** Columns of logits: 0 for Hash. */
  readonly numLogits: number;
  readonly routerPtr: number;
  readonly experts: readonly PackedExpert[];
}

/** `gate` is absent where the expert has none. */
export interface PackedExpert {
  readonly up: PackedLinear;
  readonly gate: PackedLinear | undefined;
  readonly down: PackedLinear;
}

/** A weight and its bias; an absent bias is zeros. */
export interface PackedLinear {
  readonly panelsPtr: number;
  readonly numPanels: number;
  /** Steps of the kernels' inner loop: inputs. */
  readonly steps: number;
}

/**
 * Pack weights that passed `checkLayer` into a memory of their own, which is all 0 when it comes.
 *
 * @throws RangeError naming the weight, where a value is beyond float32, or saying how much memory was refused
 */
export function packWeights(weights: Weights, set: KernelSet, newMemory: (numBytes: number) => Memory): PackedWeights {
  const { router, up, upBias, gate, gateBias, down, downBias } = weights;
  const { rows: dFf, cols: dModel } = up[0];
  checkRange(weights);
  const linearBytes = (n: number, k: number) => align(4 * linearLength(n, k, set.panelWidth));
  const ofExpert = (gate ? 2 : 1) * linearBytes(dFf, dModel) + linearBytes(dModel, dFf);
  const routerDoubles = routerLength(router.rows, dModel);
  const memory = newMemory(align(8 * routerDoubles) + up.length * ofExpert);
  const routerPtr = memory.allocate(8 * routerDoubles);
  packRouter(router, memory.doubles(routerPtr, routerDoubles));
  const experts = up.map((_, e) => ({
    up: pack(memory, set, up[e], upBias, e),
    gate: gate && pack(memory, set, gate[e], gateBias, e),
    down: pack(memory, set, down[e], downBias, e),
  }));
  return { memory, set, dModel, dFf, numLogits: router.rows, routerPtr, experts };
}

function pack(
  memory: Memory,
  { panelWidth }: KernelSet,
  w: Matrix,
  biases: Matrix | undefined,
  expert: number,
): PackedLinear {
  const length = linearLength(w.rows, w.cols, panelWidth);
  const panelsPtr = memory.allocate(4 * length);
  packLinear(w, biases && row(biases, expert), panelWidth, memory.floats(panelsPtr, length));
  return { panelsPtr, numPanels: padded(w.rows, panelWidth) / panelWidth, steps: w.cols };
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
