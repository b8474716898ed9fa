/** Streams of bytes that come in pieces. */

/** A stream of these pieces. `hangs`: after the last one nothing comes, and no end. */
export function streamOf(pieces: Iterable<Uint8Array>, hangs = false) {
  const seen = { numPulled: 0, cancelled: undefined as unknown };
  const iterator = pieces[Symbol.iterator]();
  const stream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = iterator.next();
        if (done) {
          if (hangs) await new Promise(() => {});
          controller.close();
        } else {
          seen.numPulled++;
          controller.enqueue(value);
        }
      },
      cancel(reason) {
        seen.cancelled = reason ?? 'cancelled';
      },
    },
    { highWaterMark: 0 },
  );
  return { stream, seen };
}

/** Bytes in pieces of these lengths, again and again. */
export function* piecesOf(bytes: Uint8Array, ...lengths: readonly number[]): Generator<Uint8Array> {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const end = at + lengths[i % lengths.length];
    yield bytes.subarray(at, end);
    at = end;
  }
}
