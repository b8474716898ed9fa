/** Figures of the bytes that are shown, each counted as if it were read once: a byte that is written may read others again. */
import type { Config } from 'xmoe';
import type { ModelConfig } from 'xmoe/model';
import type { Predicted } from './messages.js';

export class Tally {
  readonly #config: ModelConfig;
  /** For each XMoE layer, and each expert: the bytes that it took part in. */
  readonly usage: readonly number[][];
  numPredicted = 0;
  #bits = 0;

  constructor(config: ModelConfig) {
    this.#config = config;
    this.usage = config.moeLayers.map(() => Array.from({ length: numColumns(config.layer) }, () => 0));
  }

  add({ bits, layers }: Predicted): void {
    this.numPredicted++;
    this.#bits += bits;
    layers.forEach(({ experts }, layer) => {
      for (const expert of experts) this.usage[layer][expert]++;
    });
  }

  get bitsPerByte(): number {
    return share(this.#bits, this.numPredicted);
  }

  /** FLOPs of the XMoE layers, of those of dense FFNs of width D in their place: rule S2, by which d is in every term. */
  get flopsShare(): number {
    const { dFf, dFfDense, layer } = this.#config;
    const perPair = (layer.activation.endsWith('glu') ? 6 : 4) * dFf;
    const perByte = 2 * numColumns(layer);
    const firstReal = layer.skipExpert ? 1 : 0;
    const numPairs = this.usage.reduce((sum, counts) => sum + total(counts.slice(firstReal)), 0);
    const numRouted = this.numPredicted * this.usage.length;
    return share(perByte * numRouted + perPair * numPairs, 4 * dFfDense * numRouted);
  }

  /** The mean, for each XMoE layer. */
  get expertsPerByte(): number[] {
    return this.usage.map(counts => share(total(counts), this.numPredicted));
  }
}

/** Experts that a router may choose: a skip expert is one more, the first. */
export function numColumns({ numExperts, skipExpert }: Config): number {
  return numExperts + (skipExpert ? 1 : 0);
}

function total(counts: readonly number[]): number {
  return counts.reduce((a, b) => a + b, 0);
}

function share(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}
