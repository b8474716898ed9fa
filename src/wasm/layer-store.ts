/** The layers of a backend in memory: those that were loaded, and those of weights that the seam has seen. */
import type { Weights } from '../types.js';
import type { Threads } from './held.js';
import { type HeldLayer, holdLayer } from './hold-layer.js';
import { MemoryError } from './memory.js';

export class LayerStore {
  readonly #threads: Threads;
  readonly #loaded = new Set<HeldLayer>();
  /** As long as their weights are, and the memory goes with them. */
  #seen = new WeakMap<Weights, HeldLayer>();
  /** On threads memory does not go by itself: it has to be given back to the pool. */
  readonly #seenOnThreads = new Set<HeldLayer>();
  readonly #forgotten = new FinalizationRegistry<HeldLayer>(layer => layer.dispose());

  constructor(threads: Threads) {
    this.#threads = threads;
  }

  /** @throws as `holdLayer` does */
  load(weights: Weights): HeldLayer {
    const layer = this.#pack(weights, this.#loaded);
    this.#loaded.add(layer);
    return layer;
  }

  /** The layer of weights that the seam passes in, packed when they are first seen. @throws as `holdLayer` does */
  see(weights: Weights): HeldLayer {
    const known = this.#seen.get(weights);
    if (known) return known;
    const layer = this.#pack(weights, this.#seenOnThreads);
    this.#seen.set(weights, layer);
    if (this.#threads.pool) {
      this.#seenOnThreads.add(layer);
      this.#forgotten.register(weights, layer);
    }
    return layer;
  }

  dispose(): void {
    this.#forgetSeen();
    for (const layer of this.#loaded) layer.dispose();
  }

  /** Where memory is refused, what the seam has seen makes room: it is packed again when it is seen again. */
  #pack(weights: Weights, within: Set<HeldLayer>): HeldLayer {
    const pack = () => holdLayer(this.#threads, weights, layer => within.delete(layer));
    try {
      return pack();
    } catch (error) {
      if (!(error instanceof MemoryError)) throw error;
      this.#forgetSeen();
      return pack();
    }
  }

  #forgetSeen(): void {
    this.#seen = new WeakMap();
    for (const layer of this.#seenOnThreads) layer.dispose();
  }
}
