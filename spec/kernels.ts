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

/** What assembly/index.ts exports; the parameters are documented there. */
export interface Kernels {
  readonly product_f32_8: Kernel<10>;
  readonly product_f32_16: Kernel<10>;
  readonly activate_f32: Kernel<4>;
  readonly combine_f32: Kernel<6>;
  readonly route_f32: Kernel<8>;
  readonly softmax_f32: Kernel<4>;
  readonly sigmoid_f32: Kernel<3>;
}

/** Outputs of a panel, of each set of kernels. */
export const widths = [8, 16] as const;

/** What a product does with its sums. */
export const Finish = { STORE: 0, MULTIPLY: 1, ADD_WEIGHTED: 2 } as const;

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

/** w [n, k] and a bias [n] -> panels of `width` outputs: a panel's weights, step by step, then its biases; zeros past n. */
export function packed(w: ArrayLike<number>, bias: ArrayLike<number>, width: number): Float64Array {
  const [n, k] = [bias.length, w.length / bias.length];
  const panels = Math.ceil(n / width);
  return Float64Array.from({ length: panels * (k + 1) * width }, (_, at) => {
    const [step, j] = [Math.floor(at / width), at % width];
    const [panel, l] = [Math.floor(step / (k + 1)), step % (k + 1)];
    const output = panel * width + j;
    if (output >= n) return 0;
    return l < k ? w[output * k + l] : bias[output];
  });
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
