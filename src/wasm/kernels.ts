/** The kernels of assembly/, as TypeScript sees them: addresses in bytes, lengths in elements, all floats float32. */

import { joined } from '../joined.js';
import { bytes } from './bytes.js';
import { type WasmMemory, type WasmModule, wasm } from './engine.js';
import type { ExpertFormat } from './formats.js';
import { importingSharedMemory } from './shared-import.js';

export type Target = 'simd' | 'relaxed';

/**
 * Which of a module's kernels compute, by the size of their tiles. The bits of every result are the same.
 *
 * Panels of 8 outputs are for registers of 128 bits. In target relaxed tiles of 5 rows are the fastest on V8 before Node 24,
 * and of 6 since, which keeps so many sums in registers; other engines may want 4, as target simd always takes.
 * Panels of 16 outputs are slow, unless the engine joins neighbouring vectors into 256 bits (V8's
 * `--experimental-wasm-revectorize`): then take them, with tiles of 6 rows.
 */
export interface KernelSet {
  readonly panelWidth: 8 | 16;
  readonly tileRows: 4 | 5 | 6;
  /**
   * Whether int8 experts use the one instruction that target relaxed has for their products: faster where the machine has
   * it (AVX-VNNI), slower where V8 makes it of five. Not on Node 20, whose baseline compiler gives wrong sums for it.
   * Default false; target simd knows no difference.
   */
  readonly int8Dot?: boolean;
}

type Product = (
  panelsPtr: number,
  steps: number,
  xRows: number,
  numRows: number,
  outRows: number,
  firstPanel: number,
  lastPanel: number,
  tileRows: number,
  scratchPtr: number,
) => void;

type ProductName = `product_${ExpertFormat | 'int8_dot'}_${KernelSet['panelWidth']}`;

/** Documented where they are written, in assembly/: shapes, order of sums, errors. */
export interface Kernels extends Readonly<Record<ProductName, Product>> {
  quantize_i7(xPtr: number, xStride: number, numRows: number, k: number, codesPtr: number): void;
  activate_f32(hPtr: number, outPtr: number, n: number, activation: number): void;
  multiply_f32(factorsPtr: number, outPtr: number, n: number): void;
  combine_f32(
    outRows: number,
    weightsPtr: number,
    yRows: number,
    numRows: number,
    firstColumn: number,
    lastColumn: number,
  ): void;
  // biome-ignore format: a line a kernel
  route_f32(xPtr: number, panelsPtr: number, logitsPtr: number, scratchPtr: number, numTokens: number, k: number, numExperts: number, tileTokens: number): void;
  softmax_f32(logitsPtr: number, probsPtr: number, numTokens: number, numExperts: number): void;
  sigmoid_f32(logitsPtr: number, outPtr: number, n: number): void;
  // biome-ignore format: a line a kernel
  select_f32(probsPtr: number, maskPtr: number, numTokens: number, numExperts: number, threshold: number, tokenOffsets: number, expertIndex: number, expertProbs: number, margins: number, rowPtr: number): number;
  // biome-ignore format: a line a kernel
  place_f32(tokenOffsets: number, expertIndex: number, pairWeights: number, numTokens: number, numExperts: number, xPtr: number, xBytes: number, yPtr: number, yBytes: number, expertOffsets: number, xRows: number, yRows: number, weights: number): void;
  // biome-ignore format: a line a kernel
  add_norm_f32(xPtr: number, xStride: number, addPtr: number, addStride: number, normPtr: number, outPtr: number, outStride: number, numRows: number, d: number): void;
  // biome-ignore format: a line a kernel
  store_heads_f32(kPtr: number, vPtr: number, stride: number, keysPtr: number, valuesPtr: number, contextLength: number, start: number, numRows: number, headWidth: number, firstHead: number, lastHead: number): void;
  // biome-ignore format: a line a kernel
  attend_f32(qPtr: number, qStride: number, keysPtr: number, valuesPtr: number, contextLength: number, outPtr: number, outStride: number, start: number, numRows: number, headWidth: number, firstHead: number, lastHead: number, scratchPtr: number): void;
}

/** The compiled kernels of one target; each layer instantiates them over its own memory. */
export interface KernelModule {
  readonly target: Target;
  readonly module: WasmModule;
  /** Whether it runs over shared memory, and no other. */
  readonly isShared: boolean;
  /** Weights are packed for this set, and calls name its kernels: workers need not be told. */
  readonly set: KernelSet;
}

/** Compiled before, by target and memory. It is more than a saving: workerd compiles only while a worker starts. */
const compiled = new Map<string, WasmModule>();

/**
 * Compile the kernels of a target, once. Every module has all sets: another choice is `{ ...module, set }`, without compiling
 * again, for layers that are loaded after it.
 *
 * @param mark makes the module another one for an engine that compiles equal bytes once
 */
export async function compileKernels(
  target: Target,
  isShared: boolean,
  set: KernelSet,
  mark?: string,
): Promise<KernelModule> {
  const key = `${target} ${isShared} ${mark}`;
  const module = compiled.get(key) ?? (await compile(codeOf(target, isShared, mark)));
  compiled.set(key, module);
  return { target, module, isShared, set };
}

function codeOf(target: Target, isShared: boolean, mark: string | undefined): Uint8Array {
  const plain = isShared ? importingSharedMemory(bytes(target)) : bytes(target);
  return mark === undefined ? plain : marked(plain, mark);
}

/** With a custom section of that name, of at most 100 letters, and no content: engines ignore it. */
function marked(module: Uint8Array, name: string): Uint8Array {
  const letters = Array.from(name, letter => letter.charCodeAt(0));
  return joined([module, [0, name.length + 1, name.length], letters]);
}

/**
 * At once, where the engine allows it: the kernels take a few milliseconds, and workerd (Cloudflare Workers) compiles
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
