/** A text of a runtime: its bytes are checked here, and read by the reader that all streams share. */
import { checkBytes } from '../check.js';
import type { ModelConfig } from '../model/config.js';
import { routedBy } from '../model/transformer.js';
import { checkReadOptions } from './options.js';
import type { Cache, Reader } from './reader.js';
import type { Reading, ReadOptions, Stream } from './types.js';

export class ModelStream implements Stream {
  readonly #reader: Reader;
  readonly #config: ModelConfig;
  readonly #cache: Cache = { numTokens: 0, ptr: undefined, numReads: 0, isDisposed: false };

  constructor(reader: Reader, config: ModelConfig) {
    this.#reader = reader;
    this.#config = config;
  }

  get numTokens(): number {
    return this.#cache.numTokens;
  }

  async read(ids: Uint8Array, options: ReadOptions = {}): Promise<Reading> {
    checkBytes('ids', ids);
    checkReadOptions(options);
    const { threshold, logits = 'all', signal } = options;
    const config = routedBy(this.#config.layer, threshold);
    return this.#reader.read(this.#cache, { ids: ids.slice(), config, logits, signal });
  }

  clear(): void {
    if (this.#cache.numReads > 0) throw new Error('"stream" expected no read under way, got one: await it first');
    this.#cache.numTokens = 0;
  }

  dispose(): void {
    this.#cache.isDisposed = true;
    this.#reader.release(this.#cache);
  }
}
