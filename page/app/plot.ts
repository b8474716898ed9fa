/** Quality against cost as shapes: the page draws them, and so does who writes a picture into a file. */
import type { CurvePoint } from './curve.js';
import { type Threshold, thresholdText } from './thresholds.js';

export interface Shape {
  readonly tag: 'circle' | 'line' | 'polyline' | 'text';
  /** `class` says what it is: grid, dense, line, dot, current, tag, name; and of which of several series: of-0, of-1 … */
  readonly attributes: Readonly<Record<string, string | number>>;
  /** Of a text; the name of another shape. */
  readonly text?: string;
}

/** Points of one text, by ascending threshold. */
export interface Series {
  /** Written in a corner, where there are several. */
  readonly name?: string;
  readonly points: readonly CurvePoint[];
}

export const [WIDTH, HEIGHT] = [440, 250];
const PLOT = { left: 40, right: WIDTH - 20, top: 26, bottom: HEIGHT - 40 };

/** Nearer than this two labels would meet, in the units of the picture. */
const NEAR = 70;

/**
 * @param current the threshold that is marked
 * @param quality what the bits of the points are
 */
export function plot(series: readonly Series[], current?: Threshold, quality = 'bits per byte'): Shape[] {
  const { x, y, grid } = axes(
    series.flatMap(({ points }) => points),
    quality,
  );
  const place = ({ evaluation }: CurvePoint): Place => [x(evaluation.flopsShare), y(evaluation.bitsPerByte)];
  return [...grid, ...series.flatMap((one, i) => drawn(one, i, place, current))];
}

type Place = readonly [x: number, y: number];

function drawn(
  { name, points }: Series,
  index: number,
  place: (point: CurvePoint) => Place,
  current: Threshold | undefined,
): Shape[] {
  const of = name === undefined ? '' : ` of-${index}`;
  const line: Shape = { tag: 'polyline', attributes: { points: points.map(place).join(' '), class: `line${of}` } };
  const dots = points.map((point): Shape => {
    const [cx, cy] = place(point);
    const isCurrent = point.threshold === current;
    const attributes = { cx, cy, r: isCurrent ? 6 : 3.5, class: `dot${isCurrent ? ' current' : ''}${of}` };
    return { tag: 'circle', attributes, text: thresholdText(point.threshold) };
  });
  if (name !== undefined) return [line, ...dots, inCorner(name, index, `name${of}`)];
  const marked = points.find(({ threshold }) => threshold === current);
  const ends = [points[0], points.at(-1)].filter(point => point !== undefined && !isNear(point, marked, place));
  return [
    line,
    ...dots,
    ...ends.map(point => label(point!, place, 'name')),
    ...(marked ? [label(marked, place, 'tag')] : []),
  ];
}

/** At the top on the right, where quality is bad and cost is high: a curve that comes there is none. */
function inCorner(text: string, index: number, kind: string): Shape {
  const attributes = { x: PLOT.right - 8, y: PLOT.top + 18 + 17 * index, 'text-anchor': 'end', class: kind };
  return { tag: 'text', attributes, text };
}

function isNear(point: CurvePoint, other: CurvePoint | undefined, place: (point: CurvePoint) => Place): boolean {
  return other !== undefined && Math.hypot(place(point)[0] - place(other)[0], place(point)[1] - place(other)[1]) < NEAR;
}

/** On the side where there is room. */
function label(point: CurvePoint, place: (point: CurvePoint) => Place, kind: 'name' | 'tag'): Shape {
  const [x, y] = place(point);
  const isRight = x > (PLOT.left + PLOT.right) / 2;
  const attributes = { x: isRight ? x + 4 : x + 8, y: y - 9, 'text-anchor': isRight ? 'end' : 'start', class: kind };
  return { tag: 'text', attributes, text: thresholdText(point.threshold) };
}

interface Axes {
  /** Of a share of FLOPs; the axis is logarithmic. */
  x(flopsShare: number): number;
  y(bitsPerByte: number): number;
  readonly grid: readonly Shape[];
}

function axes(points: readonly CurvePoint[], quality: string): Axes {
  const shares = points.map(({ evaluation }) => evaluation.flopsShare).filter(share => share > 0);
  const bits = points.map(({ evaluation }) => evaluation.bitsPerByte);
  const [minBits, maxBits] = bits.length ? [Math.min(...bits), Math.max(...bits)] : [1, 3];
  const xTicks = logTicks(Math.min(0.2, ...shares), Math.max(1, ...shares));
  const yTicks = ticks(minBits, Math.max(maxBits, minBits + 0.02));
  const logX = scale(Math.log(xTicks[0]), Math.log(xTicks.at(-1)!), PLOT.left, PLOT.right);
  const x = (share: number) => logX(Math.log(Math.max(share, xTicks[0])));
  const y = scale(yTicks[0], yTicks.at(-1)!, PLOT.bottom, PLOT.top);
  const digits = Math.max(1, Math.ceil(-Math.log10(yTicks[1] - yTicks[0]) - 1e-6));
  const line = (x1: number, y1: number, x2: number, y2: number, kind: string): Shape => ({
    tag: 'line',
    attributes: { x1, y1, x2, y2, class: kind },
  });
  const text = (x: number, y: number, anchor: string, text: string): Shape => ({
    tag: 'text',
    attributes: { x, y, 'text-anchor': anchor },
    text,
  });
  return {
    x,
    y,
    grid: [
      ...xTicks.flatMap(tick => [
        line(x(tick), PLOT.top, x(tick), PLOT.bottom, tick === 1 ? 'grid dense' : 'grid'),
        text(x(tick), PLOT.bottom + 15, 'middle', `${Number((100 * tick).toPrecision(1))} %`),
      ]),
      ...yTicks.flatMap(tick => [
        line(PLOT.left, y(tick), PLOT.right, y(tick), 'grid'),
        text(PLOT.left - 6, y(tick) + 4, 'end', tick.toFixed(digits)),
      ]),
      text(PLOT.right, HEIGHT - 6, 'end', 'FLOPs, dense FFNs = 100 % →'),
      text(4, 12, 'start', `↑ ${quality}`),
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
  const step = power * ([1, 2, 5, 10].find(factor => factor * power >= rough) ?? 10);
  const first = Math.floor(min / step);
  const last = Math.ceil(max / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

/** 1, 2 and 5 times powers of ten, from at most `min` to at least `max`, both above 0 (a little more at the end is let be). */
function logTicks(min: number, max: number): number[] {
  const found: number[] = [];
  for (let power = Math.floor(Math.log10(min)); (found.at(-1) ?? 0) * 1.05 < max; power++) {
    for (const factor of [1, 2, 5]) {
      const tick = Number(`${factor}e${power}`);
      if (tick <= min) found.length = 0;
      if ((found.at(-1) ?? 0) * 1.05 < max) found.push(tick);
    }
  }
  return found;
}
