/** What the model is, and what computes it. */
import type { RuntimeUsage } from 'xmoe/runtime';
import { byId, create } from './dom.js';
import type { Opened } from './messages.js';
import { bytesText, counted } from './words.js';

export class FactsView {
  readonly #list = byId('facts');
  readonly #speed = create('dd');
  readonly #speeds = new Map<string, number>();
  readonly #memory = create('dd');

  /** Of another model than before, of which no speed is known. */
  show(name: string, { config, info }: Opened): void {
    this.#speeds.clear();
    this.#speed.textContent = '–';
    const { numLayers, moeLayers, contextLength, layer } = config;
    const threads = info.notUsed.threads ? `1 (${info.notUsed.threads})` : String(info.threads);
    const facts: readonly (readonly [string, string | HTMLElement])[] = [
      ['Model', name],
      [
        'Shape',
        `${counted(numLayers, 'layer')}, ${moeLayers.length} of them with ${layer.numExperts} experts; context ${contextLength} bytes`,
      ],
      ['Target', `WebAssembly, ${info.target} SIMD; weights ${info.experts}`],
      ['Threads', threads],
      [
        'Isolation',
        crossOriginIsolated ? 'this page is cross-origin isolated' : 'this page is not cross-origin isolated',
      ],
      ['Memory', this.#memory],
      ['Speed', this.#speed],
    ];
    this.#list.replaceChildren(
      ...facts.map(([term, fact]) =>
        create(
          'div',
          { className: term.toLowerCase() },
          create('dt', {}, term),
          typeof fact === 'string' ? create('dd', {}, fact) : fact,
        ),
      ),
    );
  }

  showUsage({ memoryBytes, weightBytes }: RuntimeUsage): void {
    this.#memory.textContent = `${bytesText(memoryBytes)}, of which weights ${bytesText(weightBytes)}`;
  }

  showSpeed(doing: 'reading' | 'writing', numBytes: number, ms: number): void {
    this.#speeds.set(doing, Math.round((1000 * numBytes) / ms));
    const each = [...this.#speeds].map(([what, speed]) => `${what} ${counted(speed, 'byte')} per second`);
    this.#speed.textContent = each.join(', ');
  }
}
