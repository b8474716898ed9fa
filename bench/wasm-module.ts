/** WebAssembly written by hand, for probes that are to be known to the instruction. */

export const [GET, SET, TEE] = [0x20, 0x21, 0x22];

/** An instruction of the SIMD group. */
export function simd(...operation: number[]): number[] {
  return [0xfd, ...operation];
}

/** A module of one function of `numParameters` i32s to an i32, over shared memory that it imports. */
export function moduleOf(name: string, numParameters: number, body: readonly number[]): Uint8Array {
  const text = (s: string) => [s.length, ...Buffer.from(s)];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, numParameters, ...Array<number>(numParameters).fill(0x7f), 1, 0x7f]),
    ...section(2, [1, ...text('env'), ...text('memory'), 2, 3, 0, ...leb(MAX_PAGES)]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...text(name), 0, 0]),
    ...section(10, [1, ...leb(body.length), ...body]),
  ]);
}

function section(id: number, content: readonly number[]): number[] {
  return [id, ...leb(content.length), ...content];
}

/** A number without a sign, seven bits a byte; up to 63 it is one with a sign as well. */
export function leb(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...leb(Math.floor(value / 128))];
}

const MAX_PAGES = 65536;

export type SharedMemory = WebAssembly.Memory;

export function sharedMemory(bytes: number): SharedMemory {
  const pages = Math.ceil(bytes / 65536);
  return new WebAssembly.Memory({ initial: pages, maximum: MAX_PAGES, shared: true });
}

export function instantiate(bytes: Uint8Array, memory: SharedMemory): unknown {
  return new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } }).exports;
}

/** The little of WebAssembly's interface that is used here: TypeScript has it only in its library for browsers. */
declare namespace WebAssembly {
  class Memory {
    constructor(descriptor: { initial: number; maximum: number; shared: boolean });
    readonly buffer: SharedArrayBuffer;
  }
  class Module {
    constructor(bytes: Uint8Array);
  }
  class Instance {
    constructor(module: Module, imports: { env: { memory: Memory } });
    readonly exports: unknown;
  }
}
