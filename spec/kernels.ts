/** The compiled kernels, for tests and benches: loaded from dist/wasm/ onto a memory of the caller's. */
import { readFileSync } from 'node:fs';

export const targets = ['simd', 'relaxed'] as const;
export type Target = (typeof targets)[number];

/** What assembly/index.ts exports. */
export interface Kernels {
  activate_f32(hPtr: number, outPtr: number, n: number, activation: number): void;
  sigmoid_f32(logitsPtr: number, outPtr: number, n: number): void;
  softmax_f32(logitsPtr: number, probsPtr: number, numTokens: number, numExperts: number): void;
  linear_f32(xPtr: number, wPtr: number, biasPtr: number, yPtr: number, n: number, m: number, k: number): void;
}

/** The kernels of a target, which import `memory` and nothing else; undefined where the engine has no relaxed SIMD. */
export function loadKernels(target: Target, memory: WebAssembly.Memory): Kernels | undefined {
  const bytes = readFileSync(new URL(`../../dist/wasm/${target}.wasm`, import.meta.url));
  if (target === 'relaxed' && !WebAssembly.validate(bytes)) return undefined;
  return new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } }).exports;
}

/** A memory of at least `bytes`, in pages of 64 KiB, filled with 0. */
export function memoryOf(bytes: number): WebAssembly.Memory {
  return new WebAssembly.Memory({ initial: Math.ceil(bytes / 65536) });
}

/** The little of WebAssembly's interface that is used here: TypeScript has it only in its library for browsers. */
declare namespace WebAssembly {
  class Memory {
    constructor(descriptor: { initial: number });
    readonly buffer: ArrayBuffer;
  }
  class Module {
    constructor(bytes: Uint8Array);
  }
  class Instance {
    constructor(module: Module, imports: { env: { memory: Memory } });
    readonly exports: Kernels;
  }
  function validate(bytes: Uint8Array): boolean;
}
