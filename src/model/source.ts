/** Where the bytes of a model come from: a file, an address, a Blob or a stream. */
import { checkBytes, show, unexpected } from '../check.js';
import { importNode, nodeProcess } from '../node.js';

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

/** The bytes cannot be had: no such file, a refusal of the server, a connection that broke. `cause` is the platform's error. */
export class SourceError extends Error {
  override readonly name = 'SourceError';
}

export interface OpenSource {
  /** Bytes of the whole, where the source says so. */
  readonly length: number | undefined;
  /** `return` closes the source, and so do its end and an error. @throws SourceError, or the reason of an abort */
  readonly chunks: AsyncGenerator<Uint8Array, void>;
}

/** @throws TypeError for what is no source; SourceError; the reason of an abort */
export async function openSource(source: ModelSource, signal: Abort | undefined): Promise<OpenSource> {
  throwIfAborted(signal);
  const address = typeof source === 'string' ? source : has(source, 'href') ? source.href : undefined;
  if (address !== undefined)
    return isPath(address) ? await openFile(address, signal) : await openAddress(address, signal);
  if (has(source, 'getReader')) return { length: undefined, chunks: chunksOf(source, signal) };
  if (has(source, 'stream')) return { length: source.size, chunks: chunksOf(source.stream(), signal) };
  throw unexpected(TypeError, 'source', 'a path, URL, Blob or ReadableStream', show(source));
}

function has<Name extends string>(source: unknown, name: Name): source is Extract<ModelSource, Record<Name, unknown>> {
  return typeof source === 'object' && source !== null && name in source;
}

function isPath(address: string): boolean {
  return nodeProcess() !== undefined && (isFileUrl(address) || !/^[a-z][a-z\d+.-]+:/i.test(address));
}

function isFileUrl(address: string): boolean {
  return address.startsWith('file:');
}

interface Files {
  open(path: string | URL): Promise<OpenFile>;
}

interface OpenFile {
  stat(): Promise<{ readonly size: number; isFile(): boolean }>;
  read(into: Uint8Array): Promise<{ readonly bytesRead: number }>;
  close(): Promise<void>;
}

const CHUNK_BYTES = 2 ** 20;

async function openFile(address: string, signal: Abort | undefined): Promise<OpenSource> {
  const { open } = await importNode<Files>('node:fs/promises');
  if (!open) throw new SourceError(`"source" expected a runtime that reads files, got ${address}`);
  const file = await open(isFileUrl(address) ? new URL(address) : address).catch(broken(address));
  async function* chunks(): AsyncGenerator<Uint8Array, void> {
    try {
      for (;;) {
        const into = new Uint8Array(CHUNK_BYTES);
        const { bytesRead } = await file.read(into).catch(broken(address));
        throwIfAborted(signal);
        if (bytesRead === 0) return;
        yield into.subarray(0, bytesRead);
      }
    } finally {
      await file.close();
    }
  }
  return { length: await lengthOf(file), chunks: chunks() };
}

/** Undefined for what is no plain file, such as a pipe. */
async function lengthOf(file: OpenFile): Promise<number | undefined> {
  const stat = await file.stat().catch(() => undefined);
  return stat?.isFile() ? stat.size : undefined;
}

async function openAddress(address: string, signal: Abort | undefined): Promise<OpenSource> {
  const answer = await fetch(address, { ...(signal && { signal: signal as AbortSignal }) }).catch(error => {
    throwIfAborted(signal);
    return broken(address)(error);
  });
  if (!answer.ok || !answer.body) {
    await answer.body?.cancel();
    throw new SourceError(`"source" expected status 200 and a body, got ${answer.status} from ${address}`);
  }
  const length = answer.headers.get('content-encoding') ? null : answer.headers.get('content-length');
  return { length: length === null ? undefined : Number(length), chunks: chunksOf(answer.body, signal) };
}

/** A stream read with a reader: not every browser can iterate over one. An abort ends a read that is under way. */
async function* chunksOf(stream: ByteStream, signal: Abort | undefined): AsyncGenerator<Uint8Array, void> {
  const reader = stream.getReader();
  const cancel = () => {
    reader.cancel(signal?.reason).catch(() => {}); // one that has failed needs none
  };
  signal?.addEventListener('abort', cancel);
  let numBytes = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(error => {
        throwIfAborted(signal);
        return broken(`a stream that broke after ${numBytes} bytes`)(error);
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

function broken(what: string): (cause: unknown) => never {
  return cause => {
    throw new SourceError(`"source" expected all of its bytes, got ${what}: ${cause}`, { cause });
  };
}

function throwIfAborted(signal: Abort | undefined): void {
  if (signal?.aborted) throw signal.reason;
}
