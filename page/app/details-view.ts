/** One byte: which experts predicted it, how probable the router found them, and how near the decision was. */
import type { ModelConfig } from 'xmoe/model';
import type { RoutedToken } from 'xmoe/runtime';
import { byId, create } from './dom.js';
import type { ShownByte } from './text-view.js';
import type { Threshold } from './thresholds.js';
import { counted } from './words.js';

const NUM_BEFORE = 12;

export class DetailsView {
  readonly #panel = byId('details');

  /** @param index of the byte in the text; undefined: none */
  show(bytes: readonly ShownByte[], index: number | undefined, config: ModelConfig, threshold: Threshold): void {
    const shown = index === undefined ? undefined : bytes[index];
    if (!shown) {
      this.#panel.replaceChildren(
        create(
          'p',
          { className: 'hint' },
          'Point at a byte, or walk through the text with the arrow keys, to see which experts predicted it.',
        ),
      );
      return;
    }
    const before = bytes.slice(Math.max(0, index! - NUM_BEFORE), index);
    const heading = create(
      'p',
      { className: 'predicted' },
      create(
        'span',
        { className: 'context', ariaHidden: 'true' },
        before.map(({ glyph }) => glyph.shown.replace('\n', '')).join(''),
      ),
      create('strong', {}, shown.glyph.shown.trim() || shown.glyph.name),
      create('span', { className: 'note' }, noteOf(shown)),
    );
    const layers = shown.predicted?.layers ?? [];
    this.#panel.replaceChildren(heading, ...layers.map((routed, i) => layerOf(config.moeLayers[i], routed, threshold)));
  }
}

function noteOf({ byte, predicted }: ShownByte): string {
  const hex = `byte ${byte.toString(16).padStart(2, '0')}`;
  if (!predicted) return `${hex}: the first of a text has nothing to be predicted from`;
  const probability = 2 ** -predicted.bits;
  return `${hex}: ${predicted.bits.toFixed(2)} bits, so the model gave it ${(100 * probability).toPrecision(2)} %`;
}

function layerOf(layer: number, { experts, probs, margin }: RoutedToken, threshold: Threshold): HTMLElement {
  const bar = create('div', { className: 'mass', ariaHidden: 'true' });
  experts.forEach((expert, rank) => {
    const segment = create('span', { className: 'share' }, probs[rank] > 0.06 ? String(expert) : '');
    segment.style.width = `${100 * probs[rank]}%`;
    bar.append(segment);
  });
  if (typeof threshold === 'number') {
    const mark = create('i');
    mark.style.left = `${100 * Math.min(1, threshold)}%`;
    bar.append(mark);
  }
  const list = create(
    'ol',
    { className: 'experts' },
    ...experts.map((expert, rank) => create('li', {}, create('b', {}, `${expert}`), ` ${probs[rank].toFixed(3)}`)),
  );
  const sum = create('p', { className: 'note' }, sumText(probs, margin));
  const heading = create('h3', {}, `Layer ${layer}: ${counted(experts.length, 'expert')}`);
  return create('section', {}, heading, bar, list, sum);
}

/** Of the chosen experts: and how little would choose otherwise. */
function sumText(probs: readonly number[], margin: number): string {
  const mass = probs.reduce((sum, p) => sum + p, 0).toFixed(3);
  return Number.isFinite(margin) ? `mass ${mass}, margin ${margin.toPrecision(2)}` : `mass ${mass}`;
}
