/** The compiled kernels, for tests and benches: loaded from dist/wasm/ onto a memory of the caller's. */
import { readFileSync } from 'node:fs';

export const targets = ['simd', 'relaxed'] as const;
export type Target = (typeof targets)[number];

/** Why a test of target relaxed does not run. */
export const NO_RELAXED = 'this engine has no relaxed SIMD; Node 20 has it with --experimental-wasm-relaxed-simd';

type Numbers<Count extends number, List extends number[] = []> = List['length'] extends Count
  ? List
  : Numbers<Count, [...List, number]>;
type Kernel<Count extends number> = (...numbers: Numbers<Count>) => void;

/** How weights may be stored, and for int8 what multiplies them. */
export const formats = ['f32', 'f16', 'bf16', 'int8', 'int8_dot'] as const;
export type Format = (typeof formats)[number];

/** Outputs of a panel, of each set of kernels. */
export const widths = [8, 16] as const;
export type Width = (typeof widths)[number];

/** What assembly/index.ts exports; the parameters are documented there. */
export interface Kernels extends Readonly<Record<`product_${Format}_${Width}`, Kernel<9>>> {
  readonly quantize_i7: Kernel<5>;
  readonly activate_f32: Kernel<4>;
  readonly multiply_f32: Kernel<3>;
  readonly combine_f32: Kernel<6>;
  readonly route_f32: Kernel<8>;
  readonly softmax_f32: Kernel<4>;
  readonly sigmoid_f32: Kernel<3>;
  readonly select_f32: Kernel<10>;
  readonly place_f32: Kernel<13>;
  readonly add_norm_f32: Kernel<9>;
  readonly store_heads_f32: Kernel<11>;
  readonly attend_f32: Kernel<13>;
}

/** The kernels of a target, which import `memory` and nothing else; undefined where the engine has no relaxed SIMD. */
export function loadKernels(target: Target, memory: WebAssembly.Memory): Kernels | undefined {
  const bytes = readFileSync(new URL(`../../dist/wasm/${target}.wasm`, import.meta.url));
  return instantiate(bytes, { env: { memory } }) as Kernels | undefined;
}

/** The exports of a module; undefined where the engine does not know its instructions. */
export function instantiate(bytes: Uint8Array, imports: WebAssembly.Imports = {}): unknown {
  if (!WebAssembly.validate(bytes)) return undefined;
  return new WebAssembly.Instance(new WebAssembly.Module(bytes), imports).exports;
}

/** A memory of at least `bytes`, in pages of 64 KiB, filled with 0. */
export function memoryOf(bytes: number): WebAssembly.Memory {
  return new WebAssembly.Memory({ initial: Math.ceil(bytes / 65536) });
}

/** Inputs that a step of a kernel takes: the ones of a step lie side by side. */
export function inputsPerStep(format: Format, target: Target): number {
  return format.startsWith('int8') ? (target === 'relaxed' ? 4 : 2) : 1;
}

/** A linear layer [n, k] as a format stores it: int8s, the bits of halves, or floats. */
export interface StoredLinear {
  readonly n: number;
  readonly k: number;
  readonly weights: ArrayLike<number>;
  readonly bias: ArrayLike<number>;
  /** Of int8. */
  readonly scales?: ArrayLike<number>;
}

/** The panels of assembly/product.ts: of each its weights step by step, biases, and of int8 scales and sums; 0 past n and k. */
export function packed(linear: StoredLinear, format: Format, target: Target, width: number): Uint8Array {
  const { n, k, weights, bias, scales } = linear;
  const group = inputsPerStep(format, target);
  const panels = Math.ceil(n / width);
  const bytesPerWeight = format === 'f32' ? 4 : format === 'f16' || format === 'bf16' ? 2 : 1;
  const ofOutput = Math.ceil(k / group) * group * bytesPerWeight + (scales ? 12 : 4);
  const bytes = new DataView(new ArrayBuffer(panels * width * ofOutput));
  let at = 0;
  const push = (value: number, how: 'setFloat32' | 'setInt32' | 'setUint16' | 'setInt8', size: number) => {
    bytes[how](at, value, true);
    at += size;
  };
  const weight = (o: number, l: number) => (o < n && l < k ? weights[o * k + l] : 0);
  for (let first = 0; first < n; first += width) {
    const outputs = Array.from({ length: width }, (_, j) => first + j);
    for (let l = 0; l < k; l += group) {
      for (const o of outputs) {
        for (let g = 0; g < group; g++) {
          if (format === 'f32') push(weight(o, l), 'setFloat32', 4);
          else if (format === 'f16' || format === 'bf16') push(weight(o, l), 'setUint16', 2);
          else push(weight(o, l + g), 'setInt8', 1);
        }
      }
    }
    for (const o of outputs) push(o < n ? bias[o] : 0, 'setFloat32', 4);
    if (!scales) continue;
    for (const o of outputs) push(o < n ? scales[o] : 0, 'setFloat32', 4);
    for (const o of outputs) {
      let sum = 0;
      for (let l = 0; l < k; l++) sum += weight(o, l);
      push(sum, 'setInt32', 4);
    }
  }
  return new Uint8Array(bytes.buffer);
}

/** The little of WebAssembly's interface that is used here: TypeScript has it only in its library for browsers. */
declare namespace WebAssembly {
  class Memory {
    constructor(descriptor: { initial: number });
    readonly buffer: ArrayBuffer;
  }
  type Imports = { env?: { memory: Memory } };
  class Module {
    constructor(bytes: Uint8Array);
  }
  class Instance {
    constructor(module: Module, imports: Imports);
    readonly exports: unknown;
  }
  function validate(bytes: Uint8Array): boolean;
}
