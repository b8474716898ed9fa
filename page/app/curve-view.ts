/** Quality against cost, over τ: a plot, and the same as a table. */
import type { CurvePoint } from './curve.js';
import { byId, create, createSvg, tableHead, tableRow } from './dom.js';
import { HEIGHT, plot, WIDTH } from './plot.js';
import { type Threshold, thresholdText } from './thresholds.js';
import { percent } from './words.js';

export class CurveView {
  readonly #figure = byId('curve');
  readonly #table = byId('curve-table');

  /** @param points in the order of their thresholds; those that are measured by now */
  show(points: readonly CurvePoint[], current: Threshold): void {
    const label = `Bits per byte against FLOPs, at ${points.length} thresholds; the table below has the figures.`;
    const shapes = plot([{ points }], current).map(({ tag, attributes, text }) => {
      const parts = text === undefined ? [] : [tag === 'text' ? text : createSvg('title', {}, text)];
      return createSvg(tag, attributes, ...parts);
    });
    const attributes = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': label };
    this.#figure.replaceChildren(createSvg('svg', attributes, ...shapes));

    const rows = points.map(({ threshold, evaluation: { bitsPerByte, flopsShare, expertsPerToken } }) => {
      const row = tableRow(
        thresholdText(threshold),
        bitsPerByte.toFixed(3),
        percent(flopsShare),
        expertsPerToken.map(mean => mean.toFixed(2)).join(' + '),
      );
      if (threshold === current) row.setAttribute('aria-current', 'true');
      return row;
    });
    this.#table.replaceChildren(
      tableHead('Threshold', 'Bits per byte', 'FLOPs', 'Experts per byte'),
      create('tbody', {}, ...rows),
    );
  }
}
