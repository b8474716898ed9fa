/** Logits of the next byte -> the next byte. */

import { finite } from '../check.js';
import { softmax } from '../router.js';
import { first } from '../selection/selection.js';
import { selectThreshold } from '../selection/threshold.js';
import type { Floats } from '../types.js';
import { nextUniform } from './random.js';

export interface SampleOptions {
  /** The logits are divided by it. 0: always the most probable byte. Default 1. */
  readonly temperature?: number;
  /** Choose among the fewest bytes, most probable first, whose mass reaches it: XMoE's own rule. In (0, 1], default 1: all. */
  readonly topP?: number;
}

/** @throws TypeError, RangeError */
export function checkSampleOptions({ temperature = 1, topP = 1 }: SampleOptions): void {
  finite('options.temperature', temperature, { min: 0 });
  finite('options.topP', topP, { above: 0, max: 1 });
}

/**
 * Choose a byte at random.
 *
 * Maths   p = softmax(logits / temperature), cut to the smallest set whose mass reaches topP and renormalised
 * Ties    equal probabilities: the lower byte first, at temperature 0 too
 */
export function sample(logits: Floats, { temperature = 1, topP = 1 }: SampleOptions, random: Uint32Array): number {
  if (temperature === 0) return first(logits);
  const max = logits[first(logits)]; // taken out before dividing, which could overflow
  const scaled = { rows: 1, cols: logits.length, data: Float64Array.from(logits, z => (z - max) / temperature) };
  const probs = softmax(scaled);
  const candidates = selectThreshold(probs, topP).expertIndex;
  const mass = candidates.reduce((sum, byte) => sum + probs.data[byte], 0);
  let left = nextUniform(random) * mass;
  for (const byte of candidates) {
    left -= probs.data[byte];
    if (left < 0) return byte;
  }
  return candidates[candidates.length - 1]; // rounding may leave a last bit of the mass
}
