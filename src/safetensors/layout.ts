/** Where the header of a file and the bytes of its tensors lie. */
import { byteLength } from './dtype.js';
import { type Entry, SafetensorsError } from './header.js';
import { quote } from './json.js';

/** Bytes before the header: its length. */
export const PREFIX_BYTES = 8;

/** The official reader's limit. */
const MAX_HEADER_BYTES = 100_000_000;

/**
 * The header's length.
 *
 * @param start what there is of a file, from its first byte on; 8 bytes are enough
 * @param fileLength of the whole file, where it is known
 */
export function headerLengthOf(start: Uint8Array, fileLength: number = Number.POSITIVE_INFINITY): number {
  if (start.length < PREFIX_BYTES) {
    throw new SafetensorsError(`"file" expected at least ${PREFIX_BYTES} bytes, got ${start.length}`);
  }
  const length = Number(new DataView(start.buffer, start.byteOffset).getBigUint64(0, true));
  const fault = (expected: string) => new SafetensorsError(`"header length" expected ${expected}, got ${length}`);
  if (length === 0) throw fault('at least 1 byte');
  if (length > MAX_HEADER_BYTES) throw fault(`at most ${MAX_HEADER_BYTES} bytes`);
  const left = fileLength - PREFIX_BYTES;
  if (length > left) throw fault(`at most the ${left} bytes that follow it`);
  return length;
}

export function decodeHeader(header: Uint8Array): string {
  // Seen before decoding, which would drop a byte order mark.
  if (header[0] !== 0x7b) throw new SafetensorsError(`"header" expected byte 123, "{", at its start, got ${header[0]}`);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(header);
  } catch (cause) {
    throw new SafetensorsError('"header" expected UTF-8, got bytes that are not', { cause });
  }
}

/**
 * The entries in order of their data, each as long as its shape says, and end to end.
 *
 * @param dataLength that they must fill; absent where it is not known yet
 */
export function inDataOrder(entries: readonly Entry[], dataLength?: number): readonly Entry[] {
  const ordered = [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  for (const { name, dtype, shape, begin, end } of ordered) {
    const fault = (key: string, expected: string, got: readonly number[]) =>
      new SafetensorsError(`tensor ${quote(name)}: "${key}" expected ${expected}, got [${got.join(', ')}]`);
    const length = byteLength(dtype, shape);
    if (length === undefined) throw fault('shape', 'less than 2^53 bytes', shape);
    if (end - begin !== length) {
      throw fault('data_offsets', `${length} bytes (${dtype} [${shape.join(', ')}])`, [begin, end]);
    }
    if (begin !== at) throw fault('data_offsets', `to begin at ${at}, where the data before it end`, [begin, end]);
    if (dataLength !== undefined && end > dataLength) {
      throw fault('data_offsets', `at most ${dataLength}, the length of the data`, [begin, end]);
    }
    at = end;
  }
  if (dataLength !== undefined && at < dataLength) throw wrongLength(at, dataLength);
  return ordered;
}

export function wrongLength(expected: number, got: number | string): SafetensorsError {
  return new SafetensorsError(`"data" expected ${expected} bytes for its tensors, got ${got}`);
}
