/** Which kind of source it is. */
import { show, unexpected } from '../check.js';
import { nodeProcess } from '../node.js';
import type { BlobLike, ByteStream, ModelSource } from './source-types.js';

export type KnownSource =
  | { readonly kind: 'path'; readonly path: string | URL }
  | { readonly kind: 'address'; readonly address: string }
  | { readonly kind: 'blob'; readonly blob: BlobLike }
  | { readonly kind: 'stream'; readonly stream: ByteStream };

/** @throws TypeError for what is no source */
export function knownSource(source: ModelSource): KnownSource {
  const address = typeof source === 'string' ? source : has(source, 'href') ? source.href : undefined;
  if (address !== undefined) {
    if (!isPath(address)) return { kind: 'address', address };
    return { kind: 'path', path: isFileUrl(address) ? new URL(address) : address };
  }
  if (has(source, 'getReader')) return { kind: 'stream', stream: source };
  if (has(source, 'stream')) return { kind: 'blob', blob: source };
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
