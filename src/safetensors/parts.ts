/** A safetensors file of which parts are read when they are wanted. */
import { Arriving } from './arriving.js';
import type { Tensor } from './dtype.js';
import type { Entry } from './header.js';
import { type FileHeader, readHeader } from './read-header.js';

/** Bytes start … end − 1 of the file. */
export type ReadRange = (start: number, end: number) => Promise<Uint8Array>;

export interface PartedFile extends FileHeader {
  /** Bytes of these tensors. */
  numBytesOf(names: Iterable<string>): number;
  /** These tensors, in order of their data, each when its bytes are there. */
  tensors(names: Iterable<string>, read: ReadRange): AsyncGenerator<[name: string, tensor: Tensor], void>;
  /** Element `index` of a tensor's first dimension. */
  element(name: string, index: number, read: ReadRange): Promise<Tensor>;
}

/** Of what lies side by side, so much is read at once. */
const SPAN_BYTES = 2 ** 22;

/** Read the header. @throws SafetensorsError, and what `read` throws */
export async function readParts(read: ReadRange, fileLength: number): Promise<PartedFile> {
  let at = 0;
  const header = await readHeader(async length => {
    const bytes = await read(at, Math.min(at + length, fileLength));
    at += length;
    return bytes;
  }, fileLength);
  const { entries, dataStart } = header;
  const inOrder = (names: Iterable<string>) => {
    const wanted = new Set(names);
    return [...entries.values()].filter(({ name }) => wanted.has(name));
  };
  return {
    ...header,
    numBytesOf: names => inOrder(names).reduce((sum, { begin, end }) => sum + end - begin, 0),
    async *tensors(names, read) {
      const wanted = inOrder(names);
      const bytes = new Arriving(bytesOf(wanted, dataStart, read));
      for (const { name, dtype, shape, begin, end } of wanted) {
        yield [name, { dtype, shape, bytes: await bytes.take(end - begin) }];
      }
    },
    async element(name, index, read) {
      const { dtype, shape, begin, end } = entries.get(name)!;
      const size = (end - begin) / shape[0];
      const first = dataStart + begin + index * size;
      return { dtype, shape: shape.slice(1), bytes: await read(first, first + size) };
    },
  };
}

async function* bytesOf(
  ordered: readonly Entry[],
  dataStart: number,
  read: ReadRange,
): AsyncGenerator<Uint8Array, void> {
  for (const [begin, end] of spansOf(ordered)) yield await read(dataStart + begin, dataStart + end);
}

/** Where the bytes of these lie, end to end where they are neighbours, in pieces that are not too large. */
function* spansOf(ordered: readonly Entry[]): Generator<[begin: number, end: number], void> {
  let at = 0;
  let until = 0;
  for (const { begin, end } of ordered) {
    if (begin !== until) {
      if (at < until) yield [at, until];
      at = begin;
    }
    until = end;
    for (; until - at >= SPAN_BYTES; at += SPAN_BYTES) yield [at, at + SPAN_BYTES];
  }
  if (at < until) yield [at, until];
}
