/** Logits of the next byte -> the next byte. */

import { finite, integer } from '../check.js';
import { softmax } from '../router.js';
import { byRank, first } from '../selection/selection.js';
import { selectThreshold } from '../selection/threshold.js';
import type { Floats } from '../types.js';
import { VOCAB_SIZE } from './config.js';
import { nextUniform } from './random.js';

export interface SampleOptions {
  /** The logits are divided by it. 0: always the most probable byte. Default 1. */
  readonly temperature?: number;
  /** Choose among so many of the most probable bytes. At least 1; default: all. */
  readonly topK?: number;
  /** Of these choose among the fewest, most probable first, whose mass reaches it: XMoE's own rule. In (0, 1], default 1: all. */
  readonly topP?: number;
}

/** @throws TypeError, RangeError */
export function checkSampleOptions({ temperature = 1, topK = VOCAB_SIZE, topP = 1 }: SampleOptions): void {
  finite('options.temperature', temperature, { min: 0 });
  integer('options.topK', topK, 1);
  finite('options.topP', topP, { above: 0, max: 1 });
}

/**
 * Choose a byte at random.
 *
 * Maths   p = softmax(logits / temperature), over the topK largest logits alone; then cut to the smallest set whose mass
 *         reaches topP, and renormalised
 * Ties    equal probabilities: the lower byte first, at temperature 0 too
 */
export function sample(logits: Floats, options: SampleOptions, random: Uint32Array): number {
  const { temperature = 1, topK = logits.length, topP = 1 } = options;
  if (temperature === 0) return first(logits);
  const max = logits[first(logits)]; // taken out before dividing, which could overflow
  const scaled = Float64Array.from(logits, z => (z - max) / temperature);
  if (topK < logits.length) for (const byte of byRank(logits).subarray(topK)) scaled[byte] = Number.NEGATIVE_INFINITY;
  const probs = softmax({ rows: 1, cols: logits.length, data: scaled });
  const candidates = selectThreshold(probs, topP).expertIndex.subarray(0, topK);
  const mass = candidates.reduce((sum, byte) => sum + probs.data[byte], 0);
  let left = nextUniform(random) * mass;
  for (const byte of candidates) {
    left -= probs.data[byte];
    if (left < 0) return byte;
  }
  return candidates[candidates.length - 1]; // rounding may leave a last bit of the mass
}
