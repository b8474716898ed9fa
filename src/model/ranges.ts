/** Parts of a source, read when they are wanted: of a file, a Blob or an address whose server knows ranges. */
import { integer, unexpected } from '../check.js';
import { openFile } from './file.js';
import { ask } from './http.js';
import { RemoteFile } from './remote-file.js';
import { knownSource } from './source-kind.js';
import {
  type Abort,
  type BlobLike,
  broken,
  type Controller,
  type ModelSource,
  SourceError,
  throwIfAborted,
  within,
} from './source-types.js';

/** All reads are of one version of the source: one that has changed since it was opened is an error. */
export interface Ranges {
  /** Bytes of the whole. */
  readonly length: number;
  /**
   * Bytes start … end − 1, in memory of their own. Any number of reads may be under way.
   *
   * @throws TypeError | RangeError for what is no part of it; SourceError; the reason of an abort; Error once it is closed
   */
  read(start: number, end: number, signal?: Abort): Promise<Uint8Array>;
  /** Lets the source go; reads under way are rejected. Twice is once. */
  close(): Promise<void>;
}

/**
 * Open a source for reading at will. A connection that breaks is made again, as `openSource` does.
 *
 * HTTP    a server must answer a range with 206, and say which version it is: a strong ETag, or a Last-Modified. To a page of
 *         another origin it must show them (`access-control-expose-headers: etag, content-range`), and allow `if-range`
 * @param signal ends the opening, not the reads
 * @param pauses see `PAUSES`
 * @throws TypeError for what is no source, or a stream; SourceError; the reason of an abort
 */
export async function openRanges(
  source: ModelSource,
  signal: Abort | undefined,
  pauses?: readonly number[],
): Promise<Ranges> {
  throwIfAborted(signal);
  const known = knownSource(source);
  switch (known.kind) {
    case 'path':
      return new OpenRanges(await partsOfFile(known.path, signal));
    case 'address':
      return new OpenRanges(await partsOfAddress(known.address, signal, pauses));
    case 'blob':
      return new OpenRanges(partsOfBlob(known.blob));
    case 'stream':
      throw unexpected(TypeError, 'source', 'a path, URL or Blob, of which parts can be read', 'a stream');
  }
}

/** What the kinds of sources have of their own. `read` is asked for parts within the length, and for at least one byte. */
interface Parts {
  readonly length: number;
  read(start: number, end: number, signal: Abort): Promise<Uint8Array>;
  close(): Promise<void>;
}

class OpenRanges implements Ranges {
  readonly length: number;
  readonly #parts: Parts;
  readonly #underWay = new Set<Controller>();
  #isClosed = false;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.length = parts.length;
  }

  async read(start: number, end: number, signal?: Abort): Promise<Uint8Array> {
    integer('start', start, 0, this.length);
    integer('end', end, start, this.length);
    throwIfAborted(signal);
    if (this.#isClosed) throw closed();
    const { own, release } = within(signal);
    this.#underWay.add(own);
    try {
      return start === end ? new Uint8Array(0) : await this.#parts.read(start, end, own.signal);
    } finally {
      this.#underWay.delete(own);
      release();
    }
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const each of this.#underWay) each.abort(closed());
    await this.#parts.close();
  }
}

function closed(): Error {
  return new Error('"source" expected one in use, got one that was closed');
}

async function partsOfFile(path: string | URL, signal: Abort | undefined): Promise<Parts> {
  const file = await openFile(path);
  try {
    const opened = await file.stat().catch(broken(`${path}`));
    throwIfAborted(signal);
    if (!opened.isFile()) throw new SourceError(`"source" expected a file, of which parts can be read, got ${path}`);
    return {
      length: opened.size,
      async read(start, end, reading) {
        const into = new Uint8Array(end - start);
        let at = 0;
        for (let isEnd = false; at < into.length && !isEnd; ) {
          const { bytesRead } = await file.read(into, at, into.length - at, start + at).catch(cause => {
            throwIfAborted(reading);
            return broken(`${path}`)(cause);
          });
          at += bytesRead;
          isEnd = bytesRead === 0;
        }
        throwIfAborted(reading);
        const { size, mtimeMs } = await file.stat().catch(broken(`${path}`));
        if (at === into.length && size === opened.size && mtimeMs === opened.mtimeMs) return into;
        throw new SourceError(`"source" expected a file that stays as it is, got ${path}, which has changed`);
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

function partsOfBlob(blob: BlobLike): Parts {
  if (!blob.slice) throw unexpected(TypeError, 'source', 'a Blob, of which parts can be read', 'one without "slice"');
  return {
    length: blob.size,
    async read(start, end, signal) {
      const bytes = await blob.slice!(start, end)
        .arrayBuffer()
        .catch(broken(`a Blob that broke at byte ${start}`));
      throwIfAborted(signal);
      if (bytes.byteLength === end - start) return new Uint8Array(bytes);
      throw new SourceError(`"source" expected ${end - start} bytes of a Blob, got ${bytes.byteLength}`);
    },
    async close() {},
  };
}

async function partsOfAddress(
  address: string,
  signal: Abort | undefined,
  pauses: readonly number[] | undefined,
): Promise<Parts> {
  const first = await ask(address, { start: 0, end: 1 }, signal);
  first.body
    .getReader()
    .cancel()
    .catch(() => {}); // it was asked for its headers
  const { isPart, length, validator } = first;
  if (!isPart || length === undefined) {
    throw new SourceError(`"source" expected status 206 for a part of it, got 200 from ${address}`);
  }
  if (!validator) {
    throw new SourceError(`"source" expected a strong "etag" or a "last-modified", got none from ${address}`);
  }
  const file = new RemoteFile(address, first, pauses);
  return {
    length,
    async read(start, end, reading) {
      const into = new Uint8Array(end - start);
      let at = 0;
      for await (const chunk of file.part(start, end, reading)) {
        into.set(chunk, at);
        at += chunk.length;
      }
      return into;
    },
    async close() {},
  };
}
