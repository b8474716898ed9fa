/** The memory of one loaded layer: weights at the bottom, laid out once; above them what one call needs, reused by the next. */
import { type WasmMemory, wasm } from './engine.js';

const PAGE = 2 ** 16;
/** A WebAssembly memory of 32-bit addresses ends here: 4 GiB. */
const MAX_PAGES = 2 ** 16;
/** Whole cache lines. */
const ALIGNMENT = 64;

/** Bytes handed out one behind the other. Address 0 is never handed out. */
export class Memory {
  readonly wasmMemory: WasmMemory;
  #end = ALIGNMENT;

  /** @throws RangeError that says how much was needed, where so much cannot be had */
  constructor(numBytes: number) {
    const pages = pagesFor('layer', ALIGNMENT + numBytes);
    this.wasmMemory = refused(
      'layer',
      ALIGNMENT + numBytes,
      () => new wasm!.Memory({ initial: pages, maximum: MAX_PAGES }),
    );
  }

  /** Where the next bytes will be: give it to `release` to hand out the same bytes again. */
  get end(): number {
    return this.#end;
  }

  release(end: number): void {
    this.#end = end;
  }

  /** The address of so many bytes, on a cache line. Views made before may be stale now: memory moves when it grows. */
  allocate(numBytes: number): number {
    const ptr = this.#end;
    const end = align(ptr + numBytes);
    const missing = pagesFor('call', end) - this.wasmMemory.buffer.byteLength / PAGE;
    if (missing > 0) refused('call', end, () => this.wasmMemory.grow(missing));
    this.#end = end;
    return ptr;
  }

  /** The same, filled with zeros. */
  allocateZeros(numBytes: number): number {
    const ptr = this.allocate(numBytes);
    new Uint8Array(this.wasmMemory.buffer, ptr, numBytes).fill(0);
    return ptr;
  }

  floats(ptr: number, length: number): Float32Array {
    return new Float32Array(this.wasmMemory.buffer, ptr, length);
  }

  doubles(ptr: number, length: number): Float64Array {
    return new Float64Array(this.wasmMemory.buffer, ptr, length);
  }

  addresses(ptr: number, length: number): Uint32Array {
    return new Uint32Array(this.wasmMemory.buffer, ptr, length);
  }
}

/** The bytes that `allocate` takes for so many. */
export function align(numBytes: number): number {
  return Math.ceil(numBytes / ALIGNMENT) * ALIGNMENT;
}

function pagesFor(what: string, numBytes: number): number {
  const pages = Math.ceil(numBytes / PAGE);
  if (pages <= MAX_PAGES) return pages;
  throw new RangeError(`"${what}" expected to need at most 4 GiB of WebAssembly memory, got ${numBytes} bytes`);
}

function refused<T>(what: string, numBytes: number, request: () => T): T {
  try {
    return request();
  } catch (cause) {
    throw new RangeError(`"${what}" expected ${numBytes} bytes of WebAssembly memory, got none: the engine refused`, {
      cause,
    });
  }
}
