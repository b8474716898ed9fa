/** Text from a model, one byte at a time. */

import { checkBytes, integer, unexpected } from '../check.js';
import { row } from '../matrix.js';
import type { ModelConfig } from './config.js';
import { keptExperts } from './facts.js';
import { randomState } from './random.js';
import { checkSampleOptions, type SampleOptions, sample } from './sample.js';
import { emptyCache, type RunOptions, routedBy, run } from './transformer.js';
import type { Model } from './types.js';

export interface GenerateOptions extends RunOptions, SampleOptions {
  /** Bytes to write. */
  readonly maxTokens: number;
  /** From 0 to 2^32 − 1; the same seed writes the same text. Default 0. */
  readonly seed?: number;
}

export interface GeneratedToken {
  readonly byte: number;
  /** The experts that kept the byte before it, from which it was predicted; best first, for each XMoE layer. */
  readonly experts: readonly (readonly number[])[];
}

/**
 * Continue a prompt.
 *
 * Context  the model reads the last `contextLength` bytes of the prompt. When its context is full, it forgets all but the
 *          newest half and reads that again from position 0: learned positions cannot slide.
 * @throws TypeError, RangeError at once, for options and for an empty prompt, which has nothing to predict from
 */
export function generate(model: Model, prompt: Uint8Array, options: GenerateOptions): Generator<GeneratedToken, void> {
  checkGenerateCall(model.config, prompt, options);
  return write(model, prompt, options);
}

/** @throws TypeError, RangeError */
export function checkGenerateCall(
  { layer }: ModelConfig,
  prompt: Uint8Array,
  options: Omit<GenerateOptions, 'backend'>,
): void {
  checkBytes('prompt', prompt);
  if (prompt.length === 0) throw unexpected(RangeError, 'prompt', 'at least 1 byte', 'none');
  integer('options.maxTokens', options.maxTokens, 0);
  integer('options.seed', options.seed ?? 0, 0, 2 ** 32 - 1);
  checkSampleOptions(options);
  routedBy(layer, options.threshold); // refuses what is no threshold
}

function* write(model: Model, prompt: Uint8Array, options: GenerateOptions): Generator<GeneratedToken, void> {
  const { contextLength } = model.config;
  const random = randomState(options.seed ?? 0);
  let context = Array.from(prompt.subarray(-contextLength));
  let unread = Uint8Array.from(context);
  let cache = emptyCache(model);
  for (let numWritten = 0; numWritten < options.maxTokens; numWritten++) {
    const { logits, traces } = run(model, unread, cache, options);
    const newest = unread.length - 1;
    const byte = sample(row(logits, newest), options, random);
    yield { byte, experts: keptExperts(traces, newest) };
    context.push(byte);
    unread = Uint8Array.of(byte);
    if (cache.numTokens === contextLength) {
      context = context.slice(-Math.ceil(contextLength / 2));
      unread = Uint8Array.from(context);
      cache = emptyCache(model);
    }
  }
}
