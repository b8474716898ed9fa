/** How well a model predicts a text, and what its experts cost. */

import { checkBytes, integer } from '../check.js';
import { row } from '../matrix.js';
import { denseFlops } from '../statistics.js';
import type { Matrix } from '../types.js';
import type { ModelConfig } from './config.js';
import { bitsOf, keptExperts } from './facts.js';
import { emptyCache, type RunOptions, run } from './transformer.js';
import type { Model } from './types.js';

export interface EvaluateOptions extends RunOptions {
  /** Predict at most so many bytes. Default: the whole text. */
  readonly maxTokens?: number;
  /** Called after each window: for progress, and for display. */
  readonly onWindow?: (window: WindowFacts) => void;
}

/** One window: the bytes from `start` on, each with what it took to know the next. */
export interface WindowFacts {
  /** Index in the text. */
  readonly start: number;
  readonly tokens: readonly TokenFacts[];
  /** FLOPs of the XMoE layers, routers included. */
  readonly moeFlops: number;
}

export interface TokenFacts {
  readonly byte: number;
  /** −log2 p of the byte after it. */
  readonly bits: number;
  /** The experts that kept the token, best first, for each XMoE layer. */
  readonly experts: readonly (readonly number[])[];
}

/** Over all predicted bytes. Where there is none: 0, and perplexity 1. */
export interface Evaluation {
  readonly numPredicted: number;
  /** The mean of −log2 p. */
  readonly bitsPerByte: number;
  /** Of a byte, not of a word: 2^bitsPerByte, which is e^(mean of −ln p). */
  readonly perplexity: number;
  /** The mean number of experts that kept a token (a skip expert counts), for each XMoE layer. */
  readonly expertsPerToken: readonly number[];
  /** FLOPs of the XMoE layers, routers included; a multiply and an add are 2. */
  readonly moeFlops: number;
  /** FLOPs of dense FFNs of width `dFfDense` in their place. */
  readonly denseFlops: number;
  /** moeFlops / denseFlops */
  readonly flopsShare: number;
}

/**
 * Predict every byte of a text but the first.
 *
 * Windows of `contextLength` bytes, the last one shorter, do not overlap and know nothing of each other: the window at s
 * predicts bytes s + 1 … s + contextLength from bytes s … s + contextLength − 1.
 *
 * @throws TypeError, RangeError for options
 */
export function evaluate(model: Model, text: Uint8Array, options: EvaluateOptions = {}): Evaluation {
  const evaluated = new Evaluated(model.config, text, options.maxTokens);
  for (const ids of evaluated.windows()) {
    const { logits, traces } = run(model, ids, emptyCache(model), options);
    const moeFlops = traces.reduce((sum, { cost }) => sum + cost.total, 0);
    const window = evaluated.add(logits, i => keptExperts(traces, i), moeFlops);
    options.onWindow?.(window);
  }
  return evaluated.evaluation;
}

/** A text that is being evaluated, window by window, by whoever runs the model. */
export class Evaluated {
  readonly #config: ModelConfig;
  readonly #text: Uint8Array;
  readonly #numPredicted: number;
  readonly #numKept: number[];
  /** Where the next window begins. */
  #start = 0;
  #bits = 0;
  #moeFlops = 0;

  /** @throws TypeError, RangeError */
  constructor(config: ModelConfig, text: Uint8Array, maxTokens: number | undefined) {
    checkBytes('text', text);
    const most = integer('options.maxTokens', maxTokens ?? text.length, 0);
    this.#config = config;
    this.#text = text;
    this.#numPredicted = Math.max(0, Math.min(text.length - 1, most));
    this.#numKept = config.moeLayers.map(() => 0);
  }

  /** The bytes of each window, to be read with nothing before them; each is added before the next is asked for. */
  *windows(): Generator<Uint8Array, void> {
    while (this.#start < this.#numPredicted) {
      const end = Math.min(this.#start + this.#config.contextLength, this.#numPredicted);
      yield this.#text.subarray(this.#start, end);
      this.#start = end;
    }
  }

  /**
   * Adds what the model said of a window's bytes.
   *
   * @param logits of the byte after each
   * @param expertsOf those that kept the window's byte i, best first, for each XMoE layer
   */
  add(logits: Matrix, expertsOf: (i: number) => readonly (readonly number[])[], moeFlops: number): WindowFacts {
    const start = this.#start;
    const tokens = Array.from({ length: logits.rows }, (_, i) => ({
      byte: this.#text[start + i],
      bits: bitsOf(row(logits, i), this.#text[start + i + 1]),
      experts: expertsOf(i),
    }));
    for (const { bits, experts } of tokens) {
      this.#bits += bits;
      experts.forEach(({ length }, layer) => {
        this.#numKept[layer] += length;
      });
    }
    this.#moeFlops += moeFlops;
    return { start, tokens, moeFlops };
  }

  /** Over all windows. */
  get evaluation(): Evaluation {
    const { moeLayers, dModel, dFfDense } = this.#config;
    const numPredicted = this.#numPredicted;
    const dense = moeLayers.length * denseFlops(numPredicted, dModel, dFfDense);
    const bitsPerByte = share(this.#bits, numPredicted);
    return {
      numPredicted,
      bitsPerByte,
      perplexity: 2 ** bitsPerByte,
      expertsPerToken: this.#numKept.map(count => share(count, numPredicted)),
      moeFlops: this.#moeFlops,
      denseFlops: dense,
      flopsShare: share(this.#moeFlops, dense),
    };
  }
}

function share(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}
