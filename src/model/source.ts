/** The bytes of a source, from the first to the last: of a file, an address, a Blob or a stream. */
import { chunksOf } from './chunks.js';
import { openFile } from './file.js';
import { ask } from './http.js';
import { RemoteFile } from './remote-file.js';
import { knownSource } from './source-kind.js';
import { type Abort, broken, type ModelSource, throwIfAborted } from './source-types.js';

export {
  type Abort,
  type Address,
  type BlobLike,
  type ByteStream,
  type ModelSource,
  SourceError,
} from './source-types.js';

export interface OpenSource {
  /** Bytes of the whole, where the source says so. */
  readonly length: number | undefined;
  /** `return` closes the source, and so do its end and an error. @throws SourceError, or the reason of an abort */
  readonly chunks: AsyncGenerator<Uint8Array, void>;
}

/**
 * Begin to read. An address goes on where its connection breaks, if its server makes that possible: see `RemoteFile`.
 *
 * @param pauses see `PAUSES`
 * @throws TypeError for what is no source; SourceError; the reason of an abort
 */
export async function openSource(
  source: ModelSource,
  signal: Abort | undefined,
  pauses?: readonly number[],
): Promise<OpenSource> {
  throwIfAborted(signal);
  const known = knownSource(source);
  switch (known.kind) {
    case 'path':
      return await readFile(known.path, signal);
    case 'address': {
      const first = await ask(known.address, undefined, signal);
      const file = new RemoteFile(known.address, first, pauses);
      return { length: first.length, chunks: file.whole(first, signal) };
    }
    case 'blob':
      return { length: known.blob.size, chunks: chunksOf(known.blob.stream(), signal, streamBroke) };
    case 'stream':
      return { length: undefined, chunks: chunksOf(known.stream, signal, streamBroke) };
  }
}

function streamBroke(cause: unknown, numBytes: number): never {
  return broken(`a stream that broke after ${numBytes} bytes`)(cause);
}

const CHUNK_BYTES = 2 ** 20;

async function readFile(path: string | URL, signal: Abort | undefined): Promise<OpenSource> {
  const file = await openFile(path);
  async function* chunks(): AsyncGenerator<Uint8Array, void> {
    try {
      for (;;) {
        const into = new Uint8Array(CHUNK_BYTES);
        const { bytesRead } = await file.read(into).catch(broken(`${path}`));
        throwIfAborted(signal);
        if (bytesRead === 0) return;
        yield into.subarray(0, bytesRead);
      }
    } finally {
      await file.close();
    }
  }
  const facts = await file.stat().catch(() => undefined);
  return { length: facts?.isFile() ? facts.size : undefined, chunks: chunks() }; // a pipe has no length
}
