/** The weights of a layer, held in memory. */
import type { Weights } from '../types.js';
import { Held, newMemory, type Threads } from './held.js';
import { type PackedWeights, packWeights } from './packed-weights.js';

export type HeldLayer = Held<PackedWeights>;

/**
 * Packs weights that passed `checkLayer`, once.
 *
 * @param onRelease told when the layer has given its memory back
 * @throws RangeError for weights that float32 or the format cannot hold, or that need more memory than can be had
 */
export function holdLayer(threads: Threads, weights: Weights, onRelease: (layer: HeldLayer) => void): HeldLayer {
  const request = (numBytes: number) => newMemory(threads, numBytes, 'layer');
  const { memory, packed } = packWeights(weights, threads.module, request, threads.experts);
  return new Held(threads, 'layer', memory, packed, onRelease);
}
