/** The weights of one layer in WebAssembly memory, as the kernels read them. */
import { row } from '../matrix.js';
import type { Matrix, Weights } from '../types.js';
import { checkStorable, type ExpertFormat, type Packing, type Storage, stepsOf, storageOf } from './formats.js';
import { align, type Memory } from './memory.js';
import { linearBytes, packBias, packMatrix, packRouter, padded, routerLength } from './panels.js';

/** What is the same of all FFNs of a layer. */
export interface FfnShape extends Storage {
  readonly dModel: number;
  readonly dFf: number;
  readonly isGated: boolean;
}

/** The weights of an XMoE layer. */
export interface PackedWeights extends FfnShape {
  /** Columns of logits: 0 for Hash. */
  readonly numLogits: number;
  readonly routerPtr: number;
  readonly experts: readonly PackedExpert[];
}

/** An expert, or a dense FFN; `gate` is absent where it has none. */
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

/** Given so many bytes it gives their address. */
export type Allocate = (numBytes: number) => number;

/** Memory for a linear of n outputs and k inputs. */
export function placeLinear(n: number, k: number, storage: Storage, allocate: Allocate): PackedLinear {
  const { set, layout } = storage;
  return {
    panelsPtr: allocate(linearBytes(n, k, set.panelWidth, layout)),
    numPanels: padded(n, set.panelWidth) / set.panelWidth,
    steps: stepsOf(k, layout),
  };
}

/**
 * Pack weights that passed `checkLayer` into a memory of their own, which is all 0 when it comes.
 *
 * @throws RangeError naming the weight, where a value is beyond the format, or saying how much memory was refused
 */
export function packWeights(
  weights: Weights,
  packing: Packing,
  newMemory: (numBytes: number) => Memory,
  format: ExpertFormat = 'f32',
): { memory: Memory; packed: PackedWeights } {
  const { router, up, upBias, gate, gateBias, down, downBias } = weights;
  const { rows: dFf, cols: dModel } = up[0];
  checkRange(weights);
  for (const [name, matrices] of Object.entries({ up, gate: gate ?? [], down })) {
    for (const [e, w] of matrices.entries()) checkStorable(format, `weights.${name}[${e}]`, w);
  }
  const shape: LayerShape = {
    ...storageOf(packing, format),
    ...{ dModel, dFf, isGated: gate !== undefined, numLogits: router.rows },
  };
  const memory = newMemory(allocated(allocate => placeWeights(shape, up.length, allocate)));
  const packed = placeWeights(shape, up.length, numBytes => memory.allocate(numBytes));
  packRouter(router, memory, packed.routerPtr);
  const pack = (linear: PackedLinear, w: Matrix, biases: Matrix | undefined, e: number) => {
    packMatrix(w, shape, memory, linear.panelsPtr);
    if (biases) packBias(row(biases, e), w.cols, shape, memory, linear.panelsPtr);
  };
  packed.experts.forEach((expert, e) => {
    pack(expert.up, up[e], upBias, e);
    if (expert.gate) pack(expert.gate, gate![e], gateBias, e);
    pack(expert.down, down[e], downBias, e);
  });
  return { memory, packed };
}

type LayerShape = Omit<PackedWeights, 'routerPtr' | 'experts'>;

/** Memory for the weights of a layer: the router's, then expert by expert. */
export function placeWeights(shape: LayerShape, numExperts: number, allocate: Allocate): PackedWeights {
  const routerPtr = allocate(8 * routerLength(shape.numLogits, shape.dModel));
  return { ...shape, routerPtr, experts: Array.from({ length: numExperts }, () => placeExpert(shape, allocate)) };
}

/** Memory for an expert, or for a dense FFN. */
export function placeExpert(shape: FfnShape, allocate: Allocate): PackedExpert {
  const { dModel, dFf, isGated } = shape;
  return {
    up: placeLinear(dFf, dModel, shape, allocate),
    gate: isGated ? placeLinear(dFf, dModel, shape, allocate) : undefined,
    down: placeLinear(dModel, dFf, shape, allocate),
  };
}

/** The bytes that something is going to allocate. */
export function allocated(place: (allocate: Allocate) => unknown): number {
  let total = 0;
  place(numBytes => {
    total += align(numBytes);
    return 0;
  });
  return total;
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
