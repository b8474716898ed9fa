/** How well a text is predicted, and at what cost, at every threshold of the slider. */
import type { Evaluation } from 'xmoe/model';
import type { Engine } from './engine.js';
import { type Threshold, thresholds } from './thresholds.js';
import { whenVisible } from './visible.js';

export interface CurvePoint {
  readonly threshold: Threshold;
  readonly evaluation: Evaluation;
}

/** Of one text and one model; filled in while there is nothing else to do. */
export class Curve {
  readonly #engine: Engine;
  readonly #text: Uint8Array;
  readonly #evaluations = new Map<Threshold, Evaluation>();

  constructor(engine: Engine, text: Uint8Array) {
    this.#engine = engine;
    this.#text = text;
  }

  /** What is measured by now, by ascending threshold. */
  get points(): CurvePoint[] {
    return thresholds.flatMap(threshold => {
      const evaluation = this.#evaluations.get(threshold);
      return evaluation ? [{ threshold, evaluation }] : [];
    });
  }

  /** Measures what is missing, while the page is looked at: `first`, and then the others from coarse to fine. */
  async fill(first: Threshold, signal: AbortSignal, onPoint: () => void): Promise<void> {
    for (const threshold of [first, ...coarseToFine(thresholds)]) {
      if (this.#evaluations.has(threshold)) continue;
      await whenVisible(signal);
      const evaluation = await this.#engine.ask('evaluate', { text: this.#text, threshold }, { signal });
      this.#evaluations.set(threshold, evaluation);
      onPoint();
    }
  }
}

/** Every 16th from the last, then every 8th, and so on to all; each once. */
function coarseToFine<T>(values: readonly T[]): Set<T> {
  const ordered = new Set<T>();
  for (let step = 16; step >= 1; step /= 2) {
    for (let i = values.length - 1; i >= 0; i -= step) ordered.add(values[i]);
  }
  return ordered;
}
