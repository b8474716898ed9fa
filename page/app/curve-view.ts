/** Quality against cost, over τ: a plot, and the same as a table. */
import type { CurvePoint } from './curve.js';
import { byId, create, createSvg, tableHead, tableRow } from './dom.js';
import type { Threshold } from './messages.js';
import { percent, thresholdText } from './words.js';

const [WIDTH, HEIGHT] = [440, 250];
const PLOT = { left: 46, right: WIDTH - 22, top: 14, bottom: HEIGHT - 40 };

export class CurveView {
  readonly #figure = byId('curve');
  readonly #table = byId('curve-table');
  /** @param points in the order of their thresholds; those that are measured by now */
  show(points: readonly CurvePoint[], current: Threshold): void {
    const { x, y, grid } = axes(points);
    const at = ({ evaluation }: CurvePoint) => `${x(evaluation.flopsShare)},${y(evaluation.bitsPerByte)}`;
    const dots = points.map(({ threshold, evaluation: { flopsShare, bitsPerByte } }) => {
      const isCurrent = threshold === current;
      const attributes = { r: isCurrent ? 6 : 4, class: isCurrent ? 'dot current' : 'dot' };
      const title = createSvg('title', {}, thresholdText(threshold));
      return createSvg('circle', { cx: x(flopsShare), cy: y(bitsPerByte), ...attributes }, title);
    });
    const label = `Bits per byte against FLOPs, at ${points.length} thresholds; the table below has the figures.`;
    const svg = createSvg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': label }, ...grid);
    svg.append(createSvg('polyline', { points: points.map(at).join(' '), class: 'line' }), ...dots);
    const chosen = points.find(({ threshold }) => threshold === current);
    if (chosen) svg.append(tag(chosen, x(chosen.evaluation.flopsShare), y(chosen.evaluation.bitsPerByte)));
    this.#figure.replaceChildren(svg);

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

/** The name of the current point, on the side where there is room. */
function tag({ threshold }: CurvePoint, x: number, y: number): SVGElement {
  const isRight = x > (PLOT.left + PLOT.right) / 2;
  const attributes = { x: x + (isRight ? -6 : 8), y: y - 10, 'text-anchor': isRight ? 'end' : 'start', class: 'tag' };
  return createSvg('text', attributes, thresholdText(threshold));
}

interface Axes {
  x(flopsShare: number): number;
  y(bitsPerByte: number): number;
  readonly grid: readonly SVGElement[];
}

function axes(points: readonly CurvePoint[]): Axes {
  const shares = points.map(({ evaluation }) => evaluation.flopsShare);
  const bits = points.map(({ evaluation }) => evaluation.bitsPerByte);
  const [minBits, maxBits] = points.length ? [Math.min(...bits), Math.max(...bits)] : [1, 3];
  const xTicks = ticks(0, Math.max(1, ...shares));
  const yTicks = ticks(minBits, Math.max(maxBits, minBits + 0.05));
  const x = scale(0, Math.max(xTicks.at(-1)!, ...shares), PLOT.left, PLOT.right);
  const y = scale(Math.min(yTicks[0], minBits), Math.max(yTicks.at(-1)!, maxBits), PLOT.bottom, PLOT.top);
  const digits = yTicks.length > 1 && yTicks[1] - yTicks[0] < 0.1 ? 2 : 1;
  return {
    x,
    y,
    grid: [
      ...xTicks.flatMap(tick => [
        createSvg('line', {
          x1: x(tick),
          x2: x(tick),
          y1: PLOT.top,
          y2: PLOT.bottom,
          class: tick === 1 ? 'grid dense' : 'grid',
        }),
        createSvg('text', { x: x(tick), y: PLOT.bottom + 15, 'text-anchor': 'middle' }, `${Math.round(100 * tick)} %`),
      ]),
      ...yTicks.flatMap(tick => [
        createSvg('line', { x1: PLOT.left, x2: PLOT.right, y1: y(tick), y2: y(tick), class: 'grid' }),
        createSvg('text', { x: PLOT.left - 6, y: y(tick) + 4, 'text-anchor': 'end' }, tick.toFixed(digits)),
      ]),
      createSvg(
        'text',
        { x: PLOT.right, y: HEIGHT - 6, 'text-anchor': 'end', class: 'axis' },
        'FLOPs, dense FFNs = 100 % →',
      ),
      createSvg('text', { x: 4, y: HEIGHT - 6, class: 'axis' }, '↑ bits per byte'),
    ],
  };
}

function scale(from: number, to: number, first: number, last: number): (value: number) => number {
  return value => Math.round(10 * (first + ((value - from) / (to - from)) * (last - first))) / 10;
}

/** Round numbers, at most seven of them, from at most `min` to at least `max`. */
function ticks(min: number, max: number): number[] {
  const rough = (max - min) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 2.5, 5, 10].find(factor => factor * power >= rough) ?? 10);
  const first = Math.floor(min / step);
  const last = Math.ceil(max / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}
