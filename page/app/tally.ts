/** Figures of the bytes that are shown. */
import type { Config } from 'xmoe';
import type { ModelConfig } from 'xmoe/model';
import type { Predicted } from './messages.js';

export class Tally {
  readonly #config: ModelConfig;
  /** For each XMoE layer, and each expert: the bytes that it took part in. */
  readonly usage: readonly number[][];
  numPredicted = 0;
  #bits = 0;
  #moeFlops = 0;

  constructor(config: ModelConfig) {
    this.#config = config;
    this.usage = config.moeLayers.map(() => Array.from({ length: numColumns(config.layer) }, () => 0));
  }

  add({ bits, moeFlops, layers }: Predicted): void {
    this.numPredicted++;
    this.#bits += bits;
    this.#moeFlops += moeFlops;
    layers.forEach(({ experts }, layer) => {
      for (const expert of experts) this.usage[layer][expert]++;
    });
  }

  get bitsPerByte(): number {
    return share(this.#bits, this.numPredicted);
  }

  /** FLOPs of the XMoE layers, of those of dense FFNs of width D in their place: 4·d·D for each byte and layer. */
  get flopsShare(): number {
    const { dModel, dFfDense, moeLayers } = this.#config;
    return share(this.#moeFlops, this.numPredicted * moeLayers.length * 4 * dModel * dFfDense);
  }

  /** The mean, for each XMoE layer. */
  get expertsPerByte(): number[] {
    return this.usage.map(counts =>
      share(
        counts.reduce((a, b) => a + b, 0),
        this.numPredicted,
      ),
    );
  }
}

/** Experts that a router may choose: a skip expert is one more, the first. */
export function numColumns({ numExperts, skipExpert }: Config): number {
  return numExperts + (skipExpert ? 1 : 0);
}

function share(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}
