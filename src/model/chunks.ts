/** The bytes of a stream. */
import { checkBytes } from '../check.js';
import { type Abort, type ByteStream, throwIfAborted } from './source-types.js';

/**
 * A stream read with a reader: not every browser can iterate over one. An abort ends a read that is under way; `return`
 * lets the stream go.
 *
 * @param failed throws the error of a stream that broke after so many bytes
 */
export async function* chunksOf(
  stream: ByteStream,
  signal: Abort | undefined,
  failed: (cause: unknown, numBytes: number) => never,
): AsyncGenerator<Uint8Array, void> {
  const reader = stream.getReader();
  const cancel = () => {
    reader.cancel(signal?.reason).catch(() => {}); // one that has failed needs none
  };
  signal?.addEventListener('abort', cancel);
  let numBytes = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(cause => {
        throwIfAborted(signal);
        return failed(cause, numBytes);
      });
      throwIfAborted(signal);
      if (done) return;
      checkBytes('source', value);
      numBytes += value!.length;
      yield value!;
    }
  } finally {
    signal?.removeEventListener('abort', cancel);
    cancel(); // not awaited: a source may be slow to let go
  }
}
