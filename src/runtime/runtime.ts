/** A loaded model: what a user holds. */

import type { ModelConfig } from '../model/config.js';
import type { Evaluation } from '../model/evaluate.js';
import { checkGenerateCall } from '../model/generate.js';
import { encode } from '../model/tokenizer.js';
import type { Held, Threads } from '../wasm/held.js';
import type { WasmInfo } from '../wasm/options.js';
import { evaluate } from './evaluate.js';
import type { Experts } from './experts.js';
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
  readonly #experts: Experts;

  constructor(held: Held<PackedModel>, threads: Threads, info: WasmInfo, experts: Experts) {
    this.config = held.open.packed.config;
    this.info = info;
    this.#held = held;
    this.#threads = threads;
    this.#reader = new Reader(held, experts);
    this.#experts = experts;
  }

  get usage(): RuntimeUsage {
    return { ...this.#experts.usage, memoryBytes: this.#held.open.memory.numBytes };
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
    this.#experts.dispose();
    this.#threads.pool?.dispose();
  }
}
