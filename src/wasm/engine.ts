/** What this folder needs of the engine's WebAssembly: a few types (no `dom` library here) and what the engine can do. */

export interface WasmMemory {
  /** Another one after the memory has grown. */
  readonly buffer: ArrayBuffer | SharedArrayBuffer;
  /** Adds pages of 64 KiB. @throws RangeError where they cannot be had */
  grow(pages: number): number;
}

/** A compiled module; may be instantiated many times. */
export type WasmModule = object;

export interface WasmInstance {
  readonly exports: Readonly<Record<string, unknown>>;
}

interface WebAssemblyGlobal {
  readonly Memory: new (descriptor: { initial: number; maximum: number; shared: boolean }) => WasmMemory;
  readonly Module: new (bytes: Uint8Array) => WasmModule;
  readonly Instance: new (module: WasmModule, imports: { env: { memory: WasmMemory } }) => WasmInstance;
  compile(bytes: Uint8Array): Promise<WasmModule>;
  validate(bytes: Uint8Array): boolean;
}

export const wasm: WebAssemblyGlobal | undefined = (globalThis as { WebAssembly?: WebAssemblyGlobal }).WebAssembly;

/** The smallest modules that use each: a function of one instruction that is dropped. */
const PROBES = {
  simd: [0xfd, 0x0c, ...Array(16).fill(0)], // v128.const 0
  relaxedSimd: [...times(3, [0xfd, 0x0c, ...Array(16).fill(0)]), 0xfd, 0x85, 0x02], // f32x4.relaxed_madd of three
};

export type Feature = keyof typeof PROBES;

export function hasFeature(feature: Feature): boolean {
  return wasm?.validate(probe(PROBES[feature])) ?? false;
}

function probe(instructions: readonly number[]): Uint8Array {
  const body = [0, ...instructions, 0x1a, 0x0b]; // no locals; drop; end
  const section = (id: number, bytes: readonly number[]) => [id, bytes.length, ...bytes];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 0, 0]), // one type: () -> ()
    ...section(3, [1, 0]), // one function of it
    ...section(10, [1, body.length, ...body]),
  ]);
}

function times(count: number, bytes: readonly number[]): number[] {
  return Array.from({ length: count }, () => bytes).flat();
}
