/**
 * Safetensors files: named tensors in one run of bytes. What is read may come from anyone.
 *
 * Format  a u64, little-endian: the length of the header; the header, which is JSON (header.ts); the data
 * Source  https://github.com/huggingface/safetensors. What its reader refuses is refused here, and more: two tensors
 *         (or two metadata) of one name, unknown keys, a header that does not begin with "{", more than 64
 *         dimensions, numbers and lengths from 2^53, and dtypes narrower than a byte
 * Errors  SafetensorsError and no other for a file that is none, whatever its bytes; the conversions of tensors throw
 *         TypeError for a wrong dtype and RangeError for a wrong value
 */
import { byteLength, DTYPES, type Tensor } from './dtype.js';
import { type Entry, METADATA, parseHeader, SafetensorsError } from './header.js';
import { quote } from './json.js';

export { fromFloat64, fromIntegers, toFloat64, toInt32 } from './convert.js';
export type { Dtype, FloatDtype, IntegerDtype, Tensor } from './dtype.js';
export { SafetensorsError } from './header.js';

export interface SafetensorsFile {
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly metadata: ReadonlyMap<string, string>;
}

/** The official reader's limit. */
const MAX_HEADER_BYTES = 100_000_000;

/**
 * The tensors, in order of their data, and the metadata. Tensors are views of `file`, in memory that grows with the
 * header alone; time is that of sorting the entries.
 * @throws SafetensorsError
 */
export function readSafetensors(file: Uint8Array): SafetensorsFile {
  if (!(file instanceof Uint8Array)) throw new TypeError(`"file" expected a Uint8Array, got ${typeof file}`);
  const header = headerOf(file);
  const { entries, metadata } = parseHeader(decode(header));
  const data = file.subarray(8 + header.length);
  const tensors = new Map<string, Tensor>();
  for (const { name, dtype, shape, begin, end } of inDataOrder(entries, data.length)) {
    tensors.set(name, { dtype, shape, bytes: new Uint8Array(data.buffer, data.byteOffset + begin, end - begin) });
  }
  return { tensors, metadata };
}

/**
 * The bytes of a file. Wide elements come first (in the order of DTYPES, then of the names' UTF-16 units), and spaces
 * after the header let the data start at a multiple of 8: every tensor is aligned to its elements. Metadata come in
 * the order of their keys. Equal contents make equal bytes.
 * @throws SafetensorsError if readSafetensors would refuse the result
 */
export function writeSafetensors({ tensors, metadata }: SafetensorsFile): Uint8Array {
  if (tensors.has(METADATA)) throw new SafetensorsError(`tensor "${METADATA}" expected another name, got this one`);
  const ordered = [...tensors].sort(byName).sort(byDtype);
  const pairs = [...metadata].sort(byName).map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
  const members = metadata.size > 0 ? [`"${METADATA}":{${pairs}}`] : [];
  let dataLength = 0;
  for (const [name, { dtype, shape, bytes }] of ordered) {
    const begin = dataLength;
    dataLength += bytes.length;
    members.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [begin, dataLength] })}`);
  }
  const header = new TextEncoder().encode(`{${members}}`);
  const headerLength = Math.ceil(header.length / 8) * 8;

  const file = new Uint8Array(8 + headerLength + dataLength);
  new DataView(file.buffer).setBigUint64(0, BigInt(headerLength), true);
  file.fill(0x20, 8, 8 + headerLength).set(header, 8);
  let at = 8 + headerLength;
  for (const [, { bytes }] of ordered) {
    file.set(bytes, at);
    at += bytes.length;
  }
  readSafetensors(file); // the one judge of names, shapes and lengths
  return file;
}

function byName([a]: [string, unknown], [b]: [string, unknown]): number {
  return a < b ? -1 : 1;
}

function byDtype([, a]: [string, Tensor], [, b]: [string, Tensor]): number {
  return DTYPES.indexOf(a.dtype) - DTYPES.indexOf(b.dtype);
}

function headerOf(file: Uint8Array): Uint8Array {
  if (file.length < 8) throw new SafetensorsError(`"file" expected at least 8 bytes, got ${file.length}`);
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const fault = (expected: string) => new SafetensorsError(`"header length" expected ${expected}, got ${length}`);
  if (length === 0) throw fault('at least 1 byte');
  if (length > MAX_HEADER_BYTES) throw fault(`at most ${MAX_HEADER_BYTES} bytes`);
  if (length > file.length - 8) throw fault(`at most the ${file.length - 8} bytes that follow it`);
  return file.subarray(8, 8 + length);
}

function decode(header: Uint8Array): string {
  // Seen before decoding, which would drop a byte order mark.
  if (header[0] !== 0x7b) throw new SafetensorsError(`"header" expected byte 123, "{", at its start, got ${header[0]}`);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(header);
  } catch (cause) {
    throw new SafetensorsError('"header" expected UTF-8, got bytes that are not', { cause });
  }
}

/** The entries in order of their data, each as long as its shape says, and end to end over all `dataLength` bytes. */
function inDataOrder(entries: readonly Entry[], dataLength: number): readonly Entry[] {
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
    if (end > dataLength) throw fault('data_offsets', `at most ${dataLength}, the length of the data`, [begin, end]);
    at = end;
  }
  if (at < dataLength) throw new SafetensorsError(`"data" expected ${at} bytes for its tensors, got ${dataLength}`);
  return ordered;
}
