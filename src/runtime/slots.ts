/** Pieces of a held memory, all of one size, that are taken and given back. */
import type { Memory } from '../wasm/memory.js';

export class Slots {
  readonly #numBytes: number;
  readonly #free: number[] = [];

  constructor(numBytes: number) {
    this.#numBytes = numBytes;
  }

  /** A free piece, or a new one. Not while a call is under way. @throws MemoryError where there is no room for it */
  take(memory: Memory): number {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    memory.begin();
    const ptr = memory.allocate(this.#numBytes);
    memory.keep();
    return ptr;
  }

  give(ptr: number): void {
    this.#free.push(ptr);
  }
}
