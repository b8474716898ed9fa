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
import { DTYPES, type Tensor } from './dtype.js';
import { METADATA, parseHeader, SafetensorsError } from './header.js';
import { decodeHeader, headerLengthOf, inDataOrder, PREFIX_BYTES } from './layout.js';

export { fromFloat64, fromIntegers, toFloat64, toInt32 } from './convert.js';
export type { Dtype, FloatDtype, IntegerDtype, Tensor } from './dtype.js';
export { SafetensorsError } from './header.js';

export interface SafetensorsFile {
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly metadata: ReadonlyMap<string, string>;
}

/**
 * The tensors, in order of their data, and the metadata. Tensors are views of `file`, in memory that grows with the
 * header alone; time is that of sorting the entries.
 * @throws SafetensorsError
 */
export function readSafetensors(file: Uint8Array): SafetensorsFile {
  if (!(file instanceof Uint8Array)) throw new TypeError(`"file" expected a Uint8Array, got ${typeof file}`);
  const dataStart = PREFIX_BYTES + headerLengthOf(file, file.length);
  const { entries, metadata } = parseHeader(decodeHeader(file.subarray(PREFIX_BYTES, dataStart)));
  const data = file.subarray(dataStart);
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
