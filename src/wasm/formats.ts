/** How experts' weights may be stored, and what of them lies in a panel: assembly/format.ts reads it. */
import { MAX_INPUTS, quantizeWeights } from '../quantize.js';
import { BFLOAT16, FLOAT16, type HalfFormat, narrowHalf } from '../safetensors/half.js';
import type { Floats, Matrix } from '../types.js';
import type { KernelSet, Target } from './kernels.js';

/**
 * `f32`: as they are. `f16`, `bf16`: in two bytes, rounded to the nearest when they are packed; computed in float32, with
 * the bits of `f32` over the rounded weights. `int8`: in one byte, multiplied with rows of integers (see quantize.ts).
 * The router is not concerned.
 */
export type ExpertFormat = (typeof expertFormats)[number];

export const expertFormats = ['f32', 'f16', 'bf16', 'int8'] as const;

/** What weights are packed for. */
export interface Packing {
  readonly target: Target;
  readonly set: KernelSet;
}

/** How the weights of products are stored, and which kernels compute them. */
export interface Storage {
  readonly set: KernelSet;
  readonly format: ExpertFormat;
  readonly layout: Layout;
}

export function storageOf({ target, set }: Packing, format: ExpertFormat): Storage {
  return { set, format, layout: layoutOf(format, target) };
}

export interface Layout {
  /** Array of stored weights. */
  readonly array: {
    new (buffer: ArrayBufferLike, byteOffset: number, length: number): Float32Array | Uint16Array | Int8Array;
    readonly BYTES_PER_ELEMENT: number;
  };
  /** Inputs that one step of the kernels' inner loop takes, side by side for each output; filled up with zeros. */
  readonly inputsPerStep: number;
  /** 4-byte words that a panel has for each output after its last step. */
  readonly trailerWords: number;
}

const HALF: Layout = { array: Uint16Array, inputsPerStep: 1, trailerWords: 1 };

export function layoutOf(format: ExpertFormat, target: Target): Layout {
  if (format === 'int8') return { array: Int8Array, inputsPerStep: target === 'relaxed' ? 4 : 2, trailerWords: 3 };
  return format === 'f32' ? { array: Float32Array, inputsPerStep: 1, trailerWords: 1 } : HALF;
}

export function stepsOf(numInputs: number, { inputsPerStep }: Layout): number {
  return Math.ceil(numInputs / inputsPerStep);
}

/** Bytes of a panel of so many outputs. */
export function panelBytes(numInputs: number, panelWidth: number, layout: Layout): number {
  const { array, inputsPerStep, trailerWords } = layout;
  const ofOutput = stepsOf(numInputs, layout) * inputsPerStep * array.BYTES_PER_ELEMENT + 4 * trailerWords;
  return panelWidth * ofOutput;
}

/** An output's weights as they are stored, and with int8 what the kernel needs besides. */
export interface Stored {
  readonly weights: ArrayLike<number>;
  /** Of int8. */
  readonly scale?: number;
  /** Σ of the stored weights. */
  readonly sum?: number;
}

export function store(format: ExpertFormat, weights: Floats): Stored {
  switch (format) {
    case 'f32':
      return { weights };
    case 'f16':
      return { weights: narrowed(weights, FLOAT16) };
    case 'bf16':
      return { weights: narrowed(weights, BFLOAT16) };
    case 'int8': {
      const { values, scale } = quantizeWeights(weights);
      return { weights: values, scale, sum: values.reduce((sum, value) => sum + value, 0) };
    }
  }
}

function narrowed(weights: Floats, format: HalfFormat): Uint16Array {
  const halves = new Uint16Array(weights.length);
  for (let l = 0; l < weights.length; l++) halves[l] = narrowHalf(weights[l], format);
  return halves;
}

/** What rounds to an infinite number of these formats. */
const LIMITS = { f16: 65520, bf16: 2 ** 128 - 2 ** 119 };

/** @throws RangeError where a weight would become infinite, or where a sum of int8 might pass int32 */
export function checkStorable(format: ExpertFormat, name: string, { data, cols }: Matrix): void {
  if (format === 'int8' && cols > MAX_INPUTS) {
    throw new RangeError(`"${name}" expected at most ${MAX_INPUTS} columns in int8, got ${cols}`);
  }
  if (format !== 'f16' && format !== 'bf16') return;
  const limit = LIMITS[format];
  const i = data.findIndex(weight => Math.abs(weight) >= limit);
  if (i < 0) return;
  const place = `[${Math.floor(i / cols)}, ${i % cols}]`;
  throw new RangeError(`"${name}" expected magnitudes below ${limit} for ${format}, got ${data[i]} at ${place}`);
}
