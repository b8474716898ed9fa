/** Logits of the next byte -> the next byte. */

import { finite, integer } from '../check.js';
import { softmax } from '../router.js';
import { first } from '../selection/selection.js';
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
 * Maths   p = softmax(logits / temperature); of the topK most probable the smallest set whose share of their mass reaches
 *         topP, renormalised
 * Ties    equal probabilities: the lower byte first, at temperature 0 too
 */
export function sample(logits: Floats, options: SampleOptions, random: Uint32Array): number {
  const { temperature = 1, topK = logits.length, topP = 1 } = options;
  if (temperature === 0) return first(logits);
  const max = logits[first(logits)]; // taken out before dividing, which could overflow
  const scaled = new Float64Array(logits.length);
  for (let byte = 0; byte < scaled.length; byte++) scaled[byte] = (logits[byte] - max) / temperature;
  const probs = softmax({ rows: 1, cols: logits.length, data: scaled }).data;
  const ranked = bestFirst(probs);
  let count = Math.min(topK, probs.length);
  let mass = 0;
  for (let rank = 0; rank < count; rank++) mass += probs[count < probs.length ? ranked(rank) : rank];
  if (topP < 1) [count, mass] = prefixOf(probs, ranked, count, topP * mass);
  let left = nextUniform(random) * mass;
  for (let rank = 0; rank < count; rank++) {
    left -= probs[ranked(rank)];
    if (left < 0) return ranked(rank);
  }
  return ranked(count - 1); // rounding may leave a last bit of the mass
}

/** The fewest bytes, at most `most`, whose mass reaches `threshold`: how many, and their mass. */
function prefixOf(probs: Floats, ranked: (rank: number) => number, most: number, threshold: number): [number, number] {
  let count = 1;
  let mass = probs[ranked(0)];
  while (count < most && mass < threshold) mass += probs[ranked(count++)];
  return [count, mass];
}

/** The byte of each rank. The likely ones are few, and seldom others are asked for: so these are put in order first. */
function bestFirst(probs: Floats): (rank: number) => number {
  const inOrder = (isMeant: (p: number) => boolean) => {
    const bytes: number[] = [];
    for (let byte = 0; byte < probs.length; byte++) if (isMeant(probs[byte])) bytes.push(byte);
    return bytes.sort((a, b) => probs[b] - probs[a] || a - b);
  };
  const likely = inOrder(p => p >= LIKELY);
  let others: number[] | undefined;
  return rank => {
    if (rank < likely.length) return likely[rank];
    others ??= inOrder(p => p < LIKELY);
    return others[rank - likely.length];
  };
}

const LIKELY = 2 ** -8;
