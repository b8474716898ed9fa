/** A loaded model: what a user holds. */

import type { ModelConfig } from '../model/config.js';
import type { Evaluation } from '../model/evaluate.js';
import { checkGenerateCall } from '../model/generate.js';
import { encode } from '../model/tokenizer.js';
import type { Held, Threads } from '../wasm/held.js';
import type { WasmInfo } from '../wasm/options.js';
import { evaluate } from './evaluate.js';
import { resident } from './experts.js';
import { write } from './generate.js';
import { checkEvaluateOptions, checkGenerateOptions } from './options.js';
import type { PackedModel } from './packed-model.js';
import { Reader } from './reader.js';
import { ModelStream } from './stream.js';
import type { EvaluateOptions, GenerateOptions, Runtime, RuntimeUsage, Stream, Token } from './types.js';

export class LoadedModel implements Runtime {
  readonly config: ModelConfig;
  readonly info: WasmInfo;
  readonly #held: Held<PackedModel>;
  readonly #threads: Threads;
  readonly #reader: Reader;
  readonly #loaded: Pick<RuntimeUsage, 'weightBytes' | 'bytesRead'>;

  constructor(
    held: Held<PackedModel>,
    threads: Threads,
    info: WasmInfo,
    loaded: Pick<RuntimeUsage, 'weightBytes' | 'bytesRead'>,
  ) {
    this.config = held.open.packed.config;
    this.info = info;
    this.#held = held;
    this.#threads = threads;
    this.#reader = new Reader(held, resident);
    this.#loaded = loaded;
  }

  get usage(): RuntimeUsage {
    const { memory, packed } = this.#held.open;
    const numExperts = packed.config.moeLayers.length * packed.config.layer.numExperts;
    return {
      ...this.#loaded,
      memoryBytes: memory.numBytes,
      experts: { resident: numExperts, reads: numExperts, evictions: 0 },
    };
  }

  stream(): Stream {
    this.#held.open; // in use
    return new ModelStream(this.#reader, this.config);
  }

  generate(prompt: string | Uint8Array, options: GenerateOptions): AsyncGenerator<Token, void> {
    const bytes = typeof prompt === 'string' ? encode(prompt) : prompt;
    checkGenerateOptions(options);
    checkGenerateCall(this.config, bytes, options);
    const { contextLength } = this.config;
    return write(this.stream(), contextLength, bytes.slice(-contextLength), options);
  }

  async evaluate(text: Uint8Array, options: EvaluateOptions = {}): Promise<Evaluation> {
    checkEvaluateOptions(options);
    return evaluate(this.stream(), this.config, text, options);
  }

  dispose(): void {
    this.#held.dispose();
    this.#threads.pool?.dispose();
  }
}
