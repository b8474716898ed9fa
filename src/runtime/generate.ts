/** Text from a runtime, one byte at a time. */
import { row } from '../matrix.js';
import { bitsOf } from '../model/facts.js';
import { randomState } from '../model/random.js';
import { sample } from '../model/sample.js';
import { decoder } from '../model/tokenizer.js';
import type { GenerateOptions, ReadOptions, Stream, Token, TokenCost } from './types.js';

/**
 * Writes on after a prompt, on a stream that is its own.
 *
 * @param prompt of 1 to `contextLength` bytes
 * @param options that were checked
 */
export async function* write(
  stream: Stream,
  contextLength: number,
  prompt: Uint8Array,
  options: GenerateOptions,
): AsyncGenerator<Token, void> {
  const { maxTokens, seed = 0, whenFull = 'shift', threshold, signal } = options;
  const readOptions: ReadOptions = {
    logits: 'last',
    ...(threshold !== undefined && { threshold }),
    ...(signal !== undefined && { signal }),
  };
  const random = randomState(seed);
  const utf8 = decoder();
  let context = Array.from(prompt);
  let unread = prompt;
  try {
    for (let numWritten = 0; numWritten < maxTokens; numWritten++) {
      const { logits, tokens, ms } = await stream.read(unread, readOptions);
      const ofLast = row(logits, 0);
      const byte = sample(ofLast, options, random);
      yield { byte, text: utf8.push(byte), bits: bitsOf(ofLast, byte), ...costOf(tokens), ms };
      context.push(byte);
      unread = Uint8Array.of(byte);
      if (stream.numTokens === contextLength) {
        if (whenFull === 'stop') return;
        context = context.slice(-Math.ceil(contextLength / 2));
        unread = Uint8Array.from(context);
        stream.clear();
      }
    }
  } finally {
    stream.dispose();
  }
}

/** Of a read: the newest byte's routing, and the FLOPs of all. */
function costOf(tokens: readonly TokenCost[]): TokenCost {
  if (tokens.length === 1) return tokens[0];
  const total = (flops: (token: TokenCost) => number) => tokens.reduce((sum, token) => sum + flops(token), 0);
  return {
    layers: tokens[tokens.length - 1].layers,
    moeFlops: total(({ moeFlops }) => moeFlops),
    flops: total(({ flops }) => flops),
  };
}
