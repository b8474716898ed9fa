/** Files, as Node opens them. */
import { importNode } from '../node.js';
import { broken, SourceError } from './source-types.js';

export interface OpenFile {
  stat(): Promise<FileFacts>;
  /** Reads on, or from `position`. */
  read(into: Uint8Array, offset?: number, length?: number, position?: number): Promise<{ readonly bytesRead: number }>;
  close(): Promise<void>;
}

export interface FileFacts {
  readonly size: number;
  readonly mtimeMs: number;
  isFile(): boolean;
}

interface Files {
  open(path: string | URL): Promise<OpenFile>;
}

/** @throws SourceError where there is no such file, or a runtime reads none */
export async function openFile(path: string | URL): Promise<OpenFile> {
  const { open } = await importNode<Files>('node:fs/promises');
  if (!open) throw new SourceError(`"source" expected a runtime that reads files, got ${path}`);
  return await open(path).catch(broken(`${path}`));
}
