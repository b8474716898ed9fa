/** The header of a file that is not here as a whole. */
import { type Entry, parseHeader } from './header.js';
import { decodeHeader, headerLengthOf, inDataOrder, PREFIX_BYTES } from './layout.js';

export interface FileHeader {
  readonly metadata: ReadonlyMap<string, string>;
  /** In order of their data, which follow each other without a gap. */
  readonly entries: ReadonlyMap<string, Entry>;
  /** Where the data begin, in bytes of the file. */
  readonly dataStart: number;
  /** Of the whole file, as its header says. */
  readonly numBytes: number;
}

/**
 * Read the header, and judge it as `readSafetensors` does.
 *
 * @param take gives the next so many bytes of the file, from its first one on; fewer where it ends
 * @param fileLength where it is known: a header that does not fit it is refused at once
 * @throws SafetensorsError
 */
export async function readHeader(
  take: (length: number) => Promise<Uint8Array>,
  fileLength?: number,
): Promise<FileHeader> {
  const prefix = await take(PREFIX_BYTES);
  const header = await take(headerLengthOf(prefix, fileLength));
  const headerLength = headerLengthOf(prefix, PREFIX_BYTES + header.length); // the file may have ended within it
  const { entries, metadata } = parseHeader(decodeHeader(header));
  const dataStart = PREFIX_BYTES + headerLength;
  const ordered = inDataOrder(entries, fileLength === undefined ? undefined : fileLength - dataStart);
  const numBytes = dataStart + (ordered.at(-1)?.end ?? 0);
  return { metadata, entries: new Map(ordered.map(entry => [entry.name, entry])), dataStart, numBytes };
}
