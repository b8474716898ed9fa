/** The kernels of assembly/, as TypeScript sees them: addresses in bytes, lengths in elements, all floats float32. */
import { bytes } from './bytes.js';
import { type WasmMemory, type WasmModule, wasm } from './engine.js';
import { importingSharedMemory } from './shared-import.js';

export type Target = 'simd' | 'relaxed';

/** Documented where they are written, in assembly/: shapes, order of sums, errors. */
export interface Kernels {
  /** Outputs of a panel of the experts' products: weights are packed for it. */
  readonly panelWidth: { readonly value: number };
  // biome-ignore format: a line a kernel
  route_f32(xPtr: number, panelsPtr: number, logitsPtr: number, scratchPtr: number, numTokens: number, k: number, numExperts: number): void;
  softmax_f32(logitsPtr: number, probsPtr: number, numTokens: number, numExperts: number): void;
  sigmoid_f32(logitsPtr: number, outPtr: number, n: number): void;
  // biome-ignore format: a line a kernel
  up_f32(rowsPtr: number, numRows: number, panelsPtr: number, biasPtr: number, hiddenPtr: number, k: number, numPanels: number, activation: number): void;
  // biome-ignore format: a line a kernel
  up_gated_f32(rowsPtr: number, numRows: number, panelsPtr: number, biasPtr: number, gatePanelsPtr: number, gateBiasPtr: number, hiddenPtr: number, k: number, numPanels: number, activation: number): void;
  // biome-ignore format: a line a kernel
  down_f32(hiddenPtr: number, hiddenStride: number, numRows: number, panelsPtr: number, biasPtr: number, outPtr: number, outStride: number, k: number, firstPanel: number, lastPanel: number): void;
  // biome-ignore format: a line a kernel
  down_combine_f32(hiddenPtr: number, hiddenStride: number, numRows: number, panelsPtr: number, biasPtr: number, weightsPtr: number, targetsPtr: number, k: number, firstPanel: number, lastPanel: number): void;
  combine_f32(
    outPtr: number,
    outStride: number,
    weightsPtr: number,
    targetsPtr: number,
    numRows: number,
    n: number,
  ): void;
}

/** The compiled kernels of one target; each layer instantiates them over its own memory. */
export interface KernelModule {
  readonly target: Target;
  readonly module: WasmModule;
  /** Whether it runs over shared memory, and no other. */
  readonly isShared: boolean;
  readonly panelWidth: number;
}

export async function compileKernels(target: Target, isShared: boolean): Promise<KernelModule> {
  const module = await compile(isShared ? importingSharedMemory(bytes(target)) : bytes(target));
  const { panelWidth } = instantiate(module, new wasm!.Memory({ initial: 0, maximum: 0, shared: isShared }));
  return { target, module, isShared, panelWidth: panelWidth.value };
}

/**
 * At once, where the engine allows it: the kernels take less than a millisecond, and workerd (Cloudflare Workers) compiles
 * only while a worker starts, when it waits for no other thread.
 */
async function compile(code: Uint8Array): Promise<WasmModule> {
  try {
    return new wasm!.Module(code);
  } catch {
    return wasm!.compile(code); // an older browser's page may not compile at once
  }
}

export function instantiate(module: WasmModule, memory: WasmMemory): Kernels {
  return new wasm!.Instance(module, { env: { memory } }).exports as unknown as Kernels;
}
