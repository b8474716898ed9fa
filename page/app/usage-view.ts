/** How often each expert took part, for each XMoE layer. */
import type { ModelConfig } from 'xmoe/model';
import type { RoutedToken } from 'xmoe/runtime';
import { byId, create, tableHead, tableRow } from './dom.js';
import { numColumns, type Tally } from './tally.js';
import { percent } from './words.js';

export class UsageView {
  readonly #config: ModelConfig;
  readonly #table = byId('usage-table');
  readonly #bars: readonly (readonly HTMLElement[])[];
  readonly #captions: readonly HTMLElement[];

  constructor(config: ModelConfig) {
    this.#config = config;
    const bars = () => Array.from({ length: numColumns(config.layer) }, () => create('i'));
    this.#bars = config.moeLayers.map(bars);
    this.#captions = config.moeLayers.map(() => create('figcaption'));
    const figures = this.#bars.map((bars, i) =>
      create('figure', {}, this.#captions[i], create('div', { className: 'bars', ariaHidden: 'true' }, ...bars)),
    );
    byId('usage').replaceChildren(...figures);
  }

  /** The tallest bar of a layer is the expert that most of its bytes chose. */
  show({ usage, numPredicted }: Tally): void {
    usage.forEach((counts, layer) => {
      const most = Math.max(1, ...counts);
      this.#captions[layer].textContent = captionOf(this.#config.moeLayers[layer], most, numPredicted);
      counts.forEach((count, expert) => {
        const bar = this.#bars[layer][expert];
        bar.style.setProperty('--share', String(count / most));
        bar.title = `expert ${expert}: ${count} of ${numPredicted} bytes`;
      });
    });
    const head = tableHead('Expert', ...this.#config.moeLayers.map(layer => `Layer ${layer}`));
    const rows = (usage[0] ?? []).map((_, expert) =>
      tableRow(String(expert), ...usage.map(counts => String(counts[expert]))),
    );
    this.#table.replaceChildren(head, create('tbody', {}, ...rows));
  }

  /** Marks the experts of a byte. */
  mark(layers: readonly RoutedToken[]): void {
    this.#bars.forEach((bars, layer) => {
      bars.forEach((bar, expert) => {
        bar.classList.toggle('marked', layers[layer]?.experts.includes(expert) ?? false);
      });
    });
  }
}

function captionOf(layer: number, most: number, numPredicted: number): string {
  return numPredicted === 0 ? `Layer ${layer}` : `Layer ${layer}, tallest: ${percent(most / numPredicted)}`;
}
