/** What a user of the runtime holds: the language model on WebAssembly, end to end. Types only. */

import type { ModelConfig } from '../model/config.js';
import type { Evaluation, WindowFacts } from '../model/evaluate.js';
import type { SampleOptions } from '../model/sample.js';
import type { Abort } from '../model/source.js';
import type { Matrix } from '../types.js';
import type { ExpertFormat } from '../wasm/formats.js';
import type { WasmFeatures, WasmInfo } from '../wasm/options.js';

export interface RuntimeOptions {
  /**
   * How the weights of products are stored: of attention, FFNs, experts and the head. Default f32. Routers, norms and
   * embeddings are float32 whatever it says.
   */
  readonly weights?: ExpertFormat;
  /** How many threads compute, from 1 to 256; 1 when absent. It never changes a bit. */
  readonly threads?: number;
  readonly features?: WasmFeatures;
  /** The same bits on every machine: target `simd`, whatever the engine has. Default false. */
  readonly deterministic?: boolean;
  /** Read an expert when a token first chooses it, and hold at most so many bytes of experts. Default: all are read at once. */
  readonly lazyExperts?: LazyExperts;
  /** Ends the loading; the promise is rejected with the reason. */
  readonly signal?: Abort;
  /** Told once the header is there, and at every piece from then on: bytes so far, and of all that will be read. */
  readonly onProgress?: (numBytes: number, total: number) => void;
}

export interface LazyExperts {
  /**
   * Bytes of packed experts at most; the least recently used make room. At least one expert's. Default: all of them. Experts
   * that a read needs and that do not fit together come in groups: it never changes a bit.
   */
  readonly budget?: number;
}

/** A loaded model: one set of weights, any number of streams. */
export interface Runtime {
  readonly config: ModelConfig;
  readonly info: WasmInfo;
  /** What it holds and has read by now. */
  readonly usage: RuntimeUsage;
  /** A new text, with a cache of its own. */
  stream(): Stream;
  /** Writes on after a prompt. @throws as `xmoe/model`'s `generate`, at once; while it runs, the reason of an abort */
  generate(prompt: string | Uint8Array, options: GenerateOptions): AsyncGenerator<Token, void>;
  /** How well it predicts a text, as `evaluate` of `xmoe/model` measures it. */
  evaluate(text: Uint8Array, options?: EvaluateOptions): Promise<Evaluation>;
  /** Gives everything back, ends the threads; twice is once. What is under way is rejected. */
  dispose(): void;
}

export interface RuntimeUsage {
  /** Bytes of packed weights in memory, experts included. */
  readonly weightBytes: number;
  /** Bytes of the WebAssembly memory. */
  readonly memoryBytes: number;
  /** Bytes read from the source so far. */
  readonly bytesRead: number;
  /** Experts in memory, and how often one was read and let go. */
  readonly experts: { readonly resident: number; readonly reads: number; readonly evictions: number };
}

/** One text: the keys and values of what was read so far. */
export interface Stream {
  /** Bytes read, at most `config.contextLength`. */
  readonly numTokens: number;
  /**
   * Read bytes after those read so far. Reads of all streams of a runtime take turns, in the order of the calls.
   *
   * Same    the logits are those of the reference's `run` within rounding; n bytes at once, or one after another, give the
   *         same bits (but with a capacity factor, which is of each call)
   * @throws RangeError where the context has no room for so many bytes; TypeError; the reason of an abort; Error after a
   *         disposal; WorkerError where a worker has died: the next read works; with `lazyExperts`, SourceError where an
   *         expert cannot be had, and RangeError where its weights will not do. What was read before the call is kept then,
   *         and nothing else
   */
  read(ids: Uint8Array, options?: ReadOptions): Promise<Reading>;
  /** Forgets everything that was read. @throws Error while a read of this stream is under way */
  clear(): void;
  /** Gives its cache back; twice is once. */
  dispose(): void;
}

export interface ReadOptions {
  /** Route by this threshold, or with every expert, instead of as the file says: another one for each call, if you like. */
  readonly threshold?: number | 'dense';
  /** Which logits are wanted: of the newest byte, or (the default) of all. */
  readonly logits?: 'all' | 'last';
  readonly signal?: Abort;
}

export interface Reading {
  /** Of the byte after each: [n, 256], or [1, 256] where the last are wanted. float32 */
  readonly logits: Matrix;
  /** What each byte took. */
  readonly tokens: readonly TokenCost[];
  readonly ms: number;
}

/** What it took to read a byte. A multiply and an add are 2 FLOPs. */
export interface TokenCost {
  /** One for each of `config.moeLayers`. */
  readonly layers: readonly RoutedToken[];
  /** FLOPs of the XMoE layers, routers included. */
  readonly moeFlops: number;
  /** FLOPs of the products of the whole model, those of the XMoE layers and of attention included. */
  readonly flops: number;
}

/** How a token was routed in one XMoE layer. */
export interface RoutedToken {
  /** The experts that kept it, best first (a skip expert counts). */
  readonly experts: readonly number[];
  /** Of these experts. */
  readonly probs: readonly number[];
  /** The least of its threshold margins: |mass before a rank − τ| (SEMANTICS: margins). Infinity where there is none. */
  readonly margin: number;
}

export interface GenerateOptions extends SampleOptions, Omit<ReadOptions, 'logits'> {
  /** Write so many bytes. */
  readonly maxTokens: number;
  /** Same seed, same text. From 0 to 2^32 − 1, default 0. */
  readonly seed?: number;
  /** When the context is full: go on with its newest half (the default), or end. */
  readonly whenFull?: 'shift' | 'stop';
}

/** A byte that was written, and what it took to choose it: reading the byte before it (the first one: the prompt). */
export interface Token extends TokenCost {
  readonly byte: number;
  /** The characters that it completes: often one, none within a character of several bytes. */
  readonly text: string;
  /** −log2 of its probability before any temperature. */
  readonly bits: number;
  /** Milliseconds of computing. */
  readonly ms: number;
}

export interface EvaluateOptions {
  readonly threshold?: number | 'dense';
  /** Predict at most so many bytes. Default: the whole text. */
  readonly maxTokens?: number;
  /** Called after each window: for progress, and for display. */
  readonly onWindow?: (window: WindowFacts) => void;
  readonly signal?: Abort;
}
