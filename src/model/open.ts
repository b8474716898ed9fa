/** A model as it arrives: from a file, an address, a Blob or a stream. */
import { checkObject, show, unexpected } from '../check.js';
import { type ArrivingFile, readArriving } from '../safetensors/stream.js';
import { assemble, checkTensors, finiteValues } from './assemble.js';
import { type ModelConfig, parseConfig } from './config.js';
import { type Abort, type ModelSource, openSource } from './source.js';
import type { Model } from './types.js';

export interface OpenOptions {
  /** Ends the loading; the promise is rejected with the reason. */
  readonly signal?: Abort;
  /** Told once the header is there, and at every piece from then on: bytes so far, and of the whole file. */
  readonly onProgress?: (numBytes: number, total: number) => void;
}

/**
 * Load a model without ever holding its file: a tensor is converted as soon as it is there, and its bytes are let go.
 *
 * Checked  as `loadModel` checks a file, and before any weight is waited for: configuration, names, shapes and, where the
 *          source says how long it is, length
 * Memory   the model, one tensor's bytes at most twice, and a piece; whatever a header claims, it grows with what arrives
 * Ends     a source is closed or cancelled when the model is there, and at any error
 * @throws SafetensorsError for a file that is none, or too short or long; TypeError | RangeError as `loadModel`, and for options;
 *         SourceError where the bytes cannot be had; the reason of an abort
 */
export async function openModel(source: ModelSource, options: OpenOptions = {}): Promise<Model> {
  checkObject('options', options);
  checkOpenOptions(options);
  return withArriving(source, options, async (config, file) => {
    const values = new Map<string, Float64Array>();
    for await (const [name, tensor] of file.tensors()) values.set(name, finiteValues(name, tensor));
    return assemble(config, name => values.get(name)!);
  });
}

/** @throws TypeError */
export function checkOpenOptions({ signal, onProgress }: OpenOptions): void {
  if (signal !== undefined) checkObject('options.signal', signal);
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw unexpected(TypeError, 'options.onProgress', 'a function', show(onProgress));
  }
}

/**
 * Lends `use` a model's file that is still arriving: its header is there and fits. The source is closed afterwards.
 *
 * @throws as `openModel` does, and what `use` throws
 */
export async function withArriving<Result>(
  source: ModelSource,
  { signal, onProgress }: OpenOptions,
  use: (config: ModelConfig, file: ArrivingFile) => Promise<Result>,
): Promise<Result> {
  const { length, chunks } = await openSource(source, signal);
  try {
    let numBytes = 0;
    let total: number | undefined;
    const report = () => {
      if (total !== undefined) onProgress?.(Math.min(numBytes, total), total);
    };
    const file = await readArriving(
      counted(chunks, count => {
        numBytes += count;
        report();
      }),
      length,
    );
    const config = parseConfig(file.metadata.get('config'));
    checkTensors(config, file.entries);
    total = file.numBytes;
    report();
    return await use(config, file);
  } finally {
    await chunks.return();
  }
}

async function* counted(
  chunks: AsyncIterable<Uint8Array>,
  onChunk: (numBytes: number) => void,
): AsyncGenerator<Uint8Array, void> {
  for await (const chunk of chunks) {
    onChunk(chunk.length);
    yield chunk;
  }
}
