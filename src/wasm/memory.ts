/** The memory of one loaded layer or model: what is kept at the bottom; above it what one call needs, reused by the next. */
import { type WasmMemory, wasm } from './engine.js';

const PAGE = 2 ** 16;
/** A WebAssembly memory of 32-bit addresses ends here: 4 GiB. */
const MAX_PAGES = 2 ** 16;
/** Whole cache lines. */
const ALIGNMENT = 64;
/** What alignment takes of a call's twenty pieces at most. */
const SLACK = 20 * ALIGNMENT;

/** So much memory cannot be had: the message says how much. */
export class MemoryError extends RangeError {}

/** Bytes handed out one behind the other. Address 0 is never handed out. */
export class Memory {
  readonly wasmMemory: WasmMemory;
  #end = ALIGNMENT;
  #callStart = ALIGNMENT;
  /** Nobody else grows it. */
  #numBytes: number;

  /**
   * @param owner what needs it, for the error
   * @throws RangeError that says how much was needed, where so much cannot be had
   */
  constructor(numBytes: number, isShared: boolean, owner = 'layer') {
    const pages = pagesFor(owner, ALIGNMENT + numBytes);
    this.wasmMemory = refused(
      owner,
      ALIGNMENT + numBytes,
      () => new wasm!.Memory({ initial: pages, maximum: MAX_PAGES, shared: isShared }),
    );
    this.#numBytes = this.wasmMemory.buffer.byteLength;
  }

  get numBytes(): number {
    return this.#numBytes;
  }

  /** Where the next bytes will be: give it to `release` to hand out the same bytes again. */
  get end(): number {
    return this.#end;
  }

  release(end: number): void {
    this.#end = end;
  }

  /** What was handed out so far stays: calls take memory above it. */
  keep(): void {
    this.#callStart = this.#end;
  }

  /** Makes room for a call: what an earlier one took is handed out again. */
  begin(): void {
    this.#end = this.#callStart;
  }

  /** Makes it as a new one would be, of at least so many bytes. @throws as the constructor does */
  reset(numBytes: number, owner: string): void {
    this.#reach(owner, ALIGNMENT + numBytes);
    this.doubles(0, this.numBytes / 8).fill(0);
    this.#end = this.#callStart = ALIGNMENT;
  }

  /** A memory of its own with the bytes that are kept. @throws as the constructor does */
  copyKept(owner: string): Memory {
    const end = this.#callStart;
    const copy = new Memory(end, this.wasmMemory.buffer instanceof SharedArrayBuffer, owner);
    new Uint8Array(copy.wasmMemory.buffer).set(new Uint8Array(this.wasmMemory.buffer, 0, end));
    copy.#end = copy.#callStart = end;
    return copy;
  }

  /** Sees to it that so many bytes can be allocated, and as many more as alignment takes. @throws as the constructor does */
  reserve(numBytes: number): void {
    this.#reach('call', this.#end + numBytes + SLACK);
  }

  /** The address of so many bytes, on a cache line. Views made before may be stale now: memory moves when it grows. */
  allocate(numBytes: number): number {
    const ptr = this.#end;
    const end = align(ptr + numBytes);
    this.#reach('call', end);
    this.#end = end;
    return ptr;
  }

  /** The same, filled with zeros. */
  allocateZeros(numBytes: number): number {
    const ptr = this.allocate(numBytes);
    this.doubles(ptr, align(numBytes) / 8).fill(0); // shared bytes are filled one by one
    return ptr;
  }

  floats(ptr: number, length: number): Float32Array {
    return new Float32Array(this.wasmMemory.buffer, ptr, length);
  }

  doubles(ptr: number, length: number): Float64Array {
    return new Float64Array(this.wasmMemory.buffer, ptr, length);
  }

  bytes(ptr: number, length: number): Uint8Array {
    return new Uint8Array(this.wasmMemory.buffer, ptr, length);
  }

  /** Addresses and counts: words without a sign. */
  words(ptr: number, length: number): Uint32Array {
    return new Uint32Array(this.wasmMemory.buffer, ptr, length);
  }

  #reach(what: string, end: number): void {
    if (end <= this.#numBytes) return;
    const missing = pagesFor(what, end) - this.#numBytes / PAGE;
    refused(what, end, () => this.wasmMemory.grow(missing));
    this.#numBytes = this.wasmMemory.buffer.byteLength;
  }
}

/** The bytes that `allocate` takes for so many. */
export function align(numBytes: number): number {
  return Math.ceil(numBytes / ALIGNMENT) * ALIGNMENT;
}

function pagesFor(what: string, numBytes: number): number {
  const pages = Math.ceil(numBytes / PAGE);
  if (pages <= MAX_PAGES) return pages;
  throw new MemoryError(`"${what}" expected to need at most 4 GiB of WebAssembly memory, got ${numBytes} bytes`);
}

function refused<T>(what: string, numBytes: number, request: () => T): T {
  try {
    return request();
  } catch (cause) {
    throw new MemoryError(`"${what}" expected ${numBytes} bytes of WebAssembly memory, got none: the engine refused`, {
      cause,
    });
  }
}
