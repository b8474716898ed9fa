/** Loads models, one at a time: the latest wins, and a model stays until the next one is there. */
import type { ExpertFormat } from 'xmoe/wasm';
import { byId } from './dom.js';
import { Engine } from './engine.js';
import { bytesText } from './words.js';

export interface ModelFile {
  readonly name: string;
  /** An address or a file. */
  readonly source: string | Blob;
}

export interface LoadOptions {
  readonly weights: ExpertFormat;
  readonly threads: number;
}

export class Loader {
  readonly #box = byId('loading');
  readonly #label = byId('loading-label');
  readonly #bar = byId<HTMLProgressElement>('loading-bar');

  /** Shows how far it is. */
  async load({ name, source }: ModelFile, options: LoadOptions, signal: AbortSignal): Promise<Engine> {
    this.#box.hidden = false;
    this.#label.textContent = `Loading ${name}`;
    this.#bar.removeAttribute('value');
    try {
      return await Engine.open(
        { source, ...options },
        {
          signal,
          onPart: ({ numBytes, total }) => {
            this.#bar.value = numBytes / total;
            this.#label.textContent = `Loading ${name}: ${bytesText(numBytes)} of ${bytesText(total)}`;
          },
        },
      );
    } finally {
      this.#box.hidden = true;
    }
  }
}
