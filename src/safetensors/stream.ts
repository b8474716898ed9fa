/** A safetensors file that is still arriving: header first, then tensor by tensor. */
import type { Tensor } from './dtype.js';
import { type Entry, parseHeader } from './header.js';
import { decodeHeader, headerLengthOf, inDataOrder, PREFIX_BYTES, wrongLength } from './layout.js';

export interface ArrivingFile {
  readonly metadata: ReadonlyMap<string, string>;
  /** In order of their data. */
  readonly entries: ReadonlyMap<string, Entry>;
  /** Of the whole file, as its header says. */
  readonly numBytes: number;
  /**
   * Each tensor when its bytes are there: all that is held of the file is the tensor given out last.
   *
   * @throws SafetensorsError where the file ends too early or goes on
   */
  tensors(): AsyncGenerator<[name: string, tensor: Tensor], void>;
}

/**
 * Wait for the header, and judge it as `readSafetensors` does. Memory grows with what has arrived, whatever a header says.
 *
 * @param chunks the bytes of the file, in pieces of any size
 * @param fileLength where it is known: a header that does not fit it is refused at once
 * @throws SafetensorsError
 */
export async function readArriving(chunks: AsyncIterator<Uint8Array>, fileLength?: number): Promise<ArrivingFile> {
  const bytes = new Arriving(chunks);
  const prefix = await bytes.take(PREFIX_BYTES);
  const header = await bytes.take(headerLengthOf(prefix, fileLength));
  const headerLength = headerLengthOf(prefix, PREFIX_BYTES + header.length); // the file may have ended within it
  const { entries, metadata } = parseHeader(decodeHeader(header));
  const dataStart = PREFIX_BYTES + headerLength;
  const ordered = inDataOrder(entries, fileLength === undefined ? undefined : fileLength - dataStart);
  const dataLength = ordered.at(-1)?.end ?? 0;

  async function* tensors(): AsyncGenerator<[string, Tensor], void> {
    for (const { name, dtype, shape, begin, end } of ordered) {
      const data = await bytes.take(end - begin);
      if (data.length < end - begin) throw wrongLength(dataLength, begin + data.length);
      yield [name, { dtype, shape, bytes: data }];
    }
    if ((await bytes.take(1)).length > 0) throw wrongLength(dataLength, 'more');
  }
  const byName = new Map(ordered.map(entry => [entry.name, entry]));
  return { metadata, entries: byName, numBytes: dataStart + dataLength, tensors };
}

/** Bytes that are taken in pieces of another size than they come in. */
class Arriving {
  readonly #chunks: AsyncIterator<Uint8Array>;
  /** What has come and was not taken. */
  #left: Uint8Array = new Uint8Array(0);

  constructor(chunks: AsyncIterator<Uint8Array>) {
    this.#chunks = chunks;
  }

  /** The next `length` bytes; fewer where the file ends. A view, where one chunk has them all. */
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

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
