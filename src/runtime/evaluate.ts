/** How well a runtime predicts a text: the windows of the model's `evaluate`, read by a stream. */
import type { ModelConfig } from '../model/config.js';
import { Evaluated, type Evaluation } from '../model/evaluate.js';
import type { EvaluateOptions, ReadOptions, Stream } from './types.js';

/** @param stream its own; @param options that were checked */
export async function evaluate(
  stream: Stream,
  config: ModelConfig,
  text: Uint8Array,
  { maxTokens, threshold, signal, onWindow }: EvaluateOptions,
): Promise<Evaluation> {
  const evaluated = new Evaluated(config, text, maxTokens);
  const readOptions: ReadOptions = {
    ...(threshold !== undefined && { threshold }),
    ...(signal !== undefined && { signal }),
  };
  try {
    for (const ids of evaluated.windows()) {
      stream.clear();
      const { logits, tokens } = await stream.read(ids, readOptions);
      const expertsOf = (i: number) => tokens[i].layers.map(({ experts }) => experts);
      const moeFlops = tokens.reduce((sum, token) => sum + token.moeFlops, 0);
      const window = evaluated.add(logits, expertsOf, moeFlops);
      onWindow?.(window);
    }
    return evaluated.evaluation;
  } finally {
    stream.dispose();
  }
}
