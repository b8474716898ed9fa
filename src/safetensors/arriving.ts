/** Bytes that are taken in pieces of another size than they come in. */
import { joined } from '../joined.js';

export class Arriving {
  readonly #chunks: AsyncIterator<Uint8Array>;
  /** What has come and was not taken. */
  #left: Uint8Array = new Uint8Array(0);

  constructor(chunks: AsyncIterator<Uint8Array>) {
    this.#chunks = chunks;
  }

  /** The next `length` bytes; fewer where they end. A view, where one chunk has them all. */
  async take(length: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for (let missing = length; ; ) {
      const part = this.#left.subarray(0, missing);
      this.#left = this.#left.subarray(part.length);
      missing -= part.length;
      if (part.length === length) return part;
      parts.push(part);
      if (missing === 0) break;
      const { done, value } = await this.#chunks.next();
      if (done) break;
      this.#left = value;
    }
    return joined(parts);
  }
}
