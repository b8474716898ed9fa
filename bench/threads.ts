/** What do threads gain? S1 and S2 on one thread and on two, in turns. */
import { wasm } from './contenders/wasm.js';
import { emit, tableOf } from './report.js';
import { timeTogether } from './session.js';
import { flopsOf, shapeNamed } from './shapes.js';
import { targetTable } from './targets.js';

const shapes = ['S1', 'S2'].map(name => shapeNamed('shape', name));
const parts = shapes.flatMap(shape =>
  wasm.flatMap(contender => [1, 2].map(threads => ({ contender, shape, threads }))),
);
const rows = await timeTogether(parts);
const flops = new Map(shapes.map(shape => [shape.name, flopsOf(shape)]));
const work = { unit: 'GFLOP/s', perCall: ({ shape }: { shape: string }) => flops.get(shape) };
emit(
  rows,
  () => tableOf(rows, work),
  () => targetTable({ threads: rows }),
);
