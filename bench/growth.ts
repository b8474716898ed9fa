/** How does the cost grow? S2 with one of its numbers changed at a time, one thread: time beside FLOPs. */
import { wasm } from './contenders/wasm.js';
import type { Row } from './measure.js';
import { emit, figures, table } from './report.js';
import { timeTogether } from './session.js';
import { flopsOf, type Shape, shapeNamed } from './shapes.js';

const S2 = shapeNamed('shape', 'S2');
const contender = wasm[0];

type Factor = 'numTokens' | 'numExperts' | 'expertsPerToken' | 'dFf' | 'dModel';

/** Each list has S2's own number in it. */
const factors: readonly (readonly [Factor, readonly number[]])[] = [
  ['numTokens', [1, 4, 16, 64, 256, 1024]],
  ['numExperts', [8, 16, 32, 64, 128]],
  ['expertsPerToken', [1, 2, 3, 4, 6, 8]],
  ['dFf', [64, 128, 256, 512, 1024]],
  ['dModel', [128, 256, 512, 1024]],
];

const measured: { factor: Factor; value: number; shape: Shape; row: Row }[] = [];
for (const [factor, values] of factors) {
  const shapes = values.map(value => ({ value, shape: { ...S2, [factor]: value, name: `S2, ${factor} ${value}` } }));
  const rows = await timeTogether(shapes.map(({ shape }) => ({ contender, shape, threads: 1 })));
  for (const [i, { value, shape }] of shapes.entries()) measured.push({ factor, value, shape, row: rows[i] });
}

emit(
  measured.map(({ row }) => row),
  () => [`${contender.name}, one thread:`, '', ...growthTable()],
);

function growthTable(): string[] {
  const cells = measured.map(({ factor, value, shape, row: { medianMs, spread } }) => {
    const own = measured.find(other => other.factor === factor && other.value === S2[factor])!;
    const flops = flopsOf(shape);
    const [inFlops, inTime] = [flops / flopsOf(own.shape), medianMs / own.row.medianMs];
    const times = [figures(medianMs), spread.map(figures).join('–'), figures(flops / medianMs / 1e6)];
    return [factor, value, figures(flops / 1e6), ...times, `${figures(inFlops)}x`, `${figures(inTime)}x`];
  });
  const titles = [
    'factor',
    'value',
    'MFLOP',
    'median ms',
    'p25–p75 ms',
    'GFLOP/s',
    "FLOPs over S2's",
    "time over S2's",
  ];
  return table(titles, cells, 1);
}
