/** What the shown bytes cost, and how well they were predicted. */
import { byId } from './dom.js';
import type { Tally } from './tally.js';
import { counted, percent } from './words.js';

export class FiguresView {
  readonly #bits = byId('bits');
  readonly #flops = byId('flops');
  readonly #experts = byId('experts');
  readonly #of = byId('figures-of');

  show(tally: Tally): void {
    const has = tally.numPredicted > 0;
    this.#bits.textContent = has ? tally.bitsPerByte.toFixed(3) : '–';
    this.#flops.textContent = has ? percent(tally.flopsShare) : '–';
    this.#experts.textContent = has ? tally.expertsPerByte.map(mean => mean.toFixed(1)).join(' + ') : '–';
    this.#of.textContent = has ? `of ${counted(tally.numPredicted, 'predicted byte')}` : '';
  }
}
