/** Does the layer turn fewer FLOPs into less time? S1, which does half of the FLOPs of the dense S4, against it: one thread. */
import { wasm } from './contenders/wasm.js';
import { emit, tableOf } from './report.js';
import { timeTogether } from './session.js';
import { flopsOf, shapeNamed } from './shapes.js';
import { targetTable } from './targets.js';

const shapes = ['S1', 'S4'].map(name => shapeNamed('shape', name));
const parts = wasm.flatMap(contender => shapes.map(shape => ({ contender, shape, threads: 1 })));
const rows = await timeTogether(parts);
const flops = new Map(shapes.map(shape => [shape.name, flopsOf(shape)]));
const work = { unit: 'GFLOP/s', perCall: ({ shape }: { shape: string }) => flops.get(shape) };
emit(
  rows,
  () => tableOf(rows, work),
  () => targetTable({ sparsity: rows }),
);
