/** How well a model predicts a text, and what its experts cost. */

import { checkBytes, integer } from '../check.js';
import { row } from '../matrix.js';
import { first } from '../selection/selection.js';
import { denseFlops } from '../statistics.js';
import type { Floats } from '../types.js';
import { keptExperts } from './facts.js';
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
  const { contextLength, dModel, dFfDense, moeLayers } = model.config;
  checkBytes('text', text);
  const maxTokens = integer('options.maxTokens', options.maxTokens ?? text.length, 0);
  const numPredicted = Math.max(0, Math.min(text.length - 1, maxTokens));

  let [bits, moeFlops] = [0, 0];
  const numKept = moeLayers.map(() => 0);
  for (let start = 0; start < numPredicted; start += contextLength) {
    const window = predict(model, text, start, Math.min(start + contextLength, numPredicted), options);
    moeFlops += window.moeFlops;
    for (const token of window.tokens) {
      bits += token.bits;
      token.experts.forEach((experts, i) => {
        numKept[i] += experts.length;
      });
    }
    options.onWindow?.(window);
  }
  const dense = moeLayers.length * denseFlops(numPredicted, dModel, dFfDense);
  const bitsPerByte = share(bits, numPredicted);
  return {
    numPredicted,
    bitsPerByte,
    perplexity: 2 ** bitsPerByte,
    expertsPerToken: numKept.map(count => share(count, numPredicted)),
    moeFlops,
    denseFlops: dense,
    flopsShare: share(moeFlops, dense),
  };
}

/** Read bytes `start` up to `end` with nothing before them, and predict the byte after each. */
function predict(model: Model, text: Uint8Array, start: number, end: number, options: RunOptions): WindowFacts {
  const ids = text.subarray(start, end);
  const { logits, traces } = run(model, ids, emptyCache(model), options);
  const tokens = Array.from(ids, (byte, i) => ({
    byte,
    bits: bitsOf(row(logits, i), text[start + i + 1]),
    experts: keptExperts(traces, i),
  }));
  return { start, tokens, moeFlops: traces.reduce((sum, { cost }) => sum + cost.total, 0) };
}

/** −log2 softmax(logits)[id] = log2 Σ exp(z − z[id]); the largest z is taken out, so that nothing overflows. */
function bitsOf(logits: Floats, id: number): number {
  const max = logits[first(logits)];
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - max);
  return (Math.log(sum) + (max - logits[id])) / Math.LN2;
}

function share(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}
