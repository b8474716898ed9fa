/** What the bytes of a model may come from, and what goes wrong on the way. */

/**
 * A string is a path on Node (and Deno and Bun), unless it begins with a scheme such as `https:`; elsewhere it is an
 * address, relative to the page. A URL of `file:` is a path too. The types are those parts of the platforms' own that are used.
 */
export type ModelSource = string | Address | BlobLike | ByteStream;

/** A URL. */
export interface Address {
  readonly href: string;
}

/** A Blob or File. */
export interface BlobLike {
  readonly size: number;
  stream(): ByteStream;
  /** Needed where parts are read when they are wanted. */
  slice?(start: number, end: number): { arrayBuffer(): Promise<ArrayBuffer> };
}

/** A ReadableStream of Uint8Arrays. */
export interface ByteStream {
  getReader(): {
    read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
    cancel(reason?: unknown): Promise<void>;
  };
}

/** An AbortSignal. */
export interface Abort {
  readonly aborted: boolean;
  readonly reason: unknown;
  addEventListener(type: 'abort', listener: () => void): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

/**
 * The bytes cannot be had: no such file, a refusal of the server, a connection that broke, a file that is another one by
 * now. `cause` is the platform's error, where there is one.
 */
export class SourceError extends Error {
  override readonly name: string = 'SourceError';
}

/** The handler of a platform's error. */
export function broken(what: string): (cause: unknown) => never {
  return cause => {
    throw new SourceError(`"source" expected all of its bytes, got ${what}: ${cause}`, { cause });
  };
}

export function throwIfAborted(signal: Abort | undefined): void {
  if (signal?.aborted) throw signal.reason;
}

/** An AbortController: the types of whoever imports ours may be without the platform's. */
export interface Controller {
  readonly signal: Abort;
  abort(reason?: unknown): void;
}

/** A controller of its own that an abort of `signal` reaches, until it is let go. */
export function within(signal: Abort | undefined): { readonly own: Controller; release(): void } {
  const own = new AbortController();
  const abort = () => own.abort(signal!.reason);
  if (signal?.aborted) abort();
  signal?.addEventListener('abort', abort);
  return { own, release: () => signal?.removeEventListener('abort', abort) };
}
