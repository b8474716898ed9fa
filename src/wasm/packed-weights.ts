/** The weights of one layer in WebAssembly memory, as the kernels read them. */
import { row } from '../matrix.js';
import type { Matrix, Weights } from '../types.js';
import { checkStorable, type ExpertFormat, type Layout, layoutOf, stepsOf } from './formats.js';
import type { KernelSet, Target } from './kernels.js';
import { align, type Memory } from './memory.js';
import { linearBytes, packLinear, packRouter, padded, routerLength } from './panels.js';

export interface PackedWeights {
  readonly memory: Memory;
  /** The kernels that they are packed for. */
  readonly set: KernelSet;
  readonly format: ExpertFormat;
  readonly layout: Layout;
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
  /** Of the kernels' inner loop. */
  readonly steps: number;
}

/** What weights are packed for. */
export interface Packing {
  readonly target: Target;
  readonly set: KernelSet;
}

/**
 * Pack weights that passed `checkLayer` into a memory of their own, which is all 0 when it comes.
 *
 * @throws RangeError naming the weight, where a value is beyond the format, or saying how much memory was refused
 */
export function packWeights(
  weights: Weights,
  { target, set }: Packing,
  newMemory: (numBytes: number) => Memory,
  format: ExpertFormat = 'f32',
): PackedWeights {
  const { router, up, upBias, gate, gateBias, down, downBias } = weights;
  const { rows: dFf, cols: dModel } = up[0];
  checkRange(weights);
  for (const [name, matrices] of Object.entries({ up, gate: gate ?? [], down })) {
    for (const [e, w] of matrices.entries()) checkStorable(format, `weights.${name}[${e}]`, w);
  }
  const layout = layoutOf(format, target);
  const bytesOf = (n: number, k: number) => linearBytes(n, k, set.panelWidth, layout);
  const ofExpert = (gate ? 2 : 1) * align(bytesOf(dFf, dModel)) + align(bytesOf(dModel, dFf));
  const routerDoubles = routerLength(router.rows, dModel);
  const memory = newMemory(align(8 * routerDoubles) + up.length * ofExpert);

  const routerPtr = memory.allocate(8 * routerDoubles);
  packRouter(router, memory.doubles(routerPtr, routerDoubles));
  const pack = (w: Matrix, biases: Matrix | undefined, e: number): PackedLinear => {
    const numBytes = bytesOf(w.rows, w.cols);
    const panelsPtr = memory.allocate(numBytes);
    const into = new Uint8Array(memory.wasmMemory.buffer, panelsPtr, numBytes);
    packLinear(w, biases && row(biases, e), format, layout, set.panelWidth, into);
    return { panelsPtr, numPanels: padded(w.rows, set.panelWidth) / set.panelWidth, steps: stepsOf(w.cols, layout) };
  };
  const experts = up.map((_, e) => ({
    up: pack(up[e], upBias, e),
    gate: gate && pack(gate[e], gateBias, e),
    down: pack(down[e], downBias, e),
  }));
  return { memory, set, format, layout, dModel, dFf, numLogits: router.rows, routerPtr, experts };
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
