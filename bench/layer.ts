/**
 * How long does a layer take here, and how long elsewhere? x is given, y is wanted. Ours makes its own decisions within the
 * clock; of the others some are given them, which is less work.
 *
 * Options  --shape S1,S2  --threads 1,2  --only PARTS,OF,NAMES  --json  --rows FILE
 *
 * Each shape and number of threads has a process of its own, in which the contenders take turns: onnxruntime-web fixes its
 * threads with its first session.
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { contenders } from './contenders/index.js';
import type { Row } from './measure.js';
import { emit, figures, outputOptions, table } from './report.js';
import { timeTogether } from './session.js';
import { flopsOf, type Shape, shapeNamed, shapes } from './shapes.js';
import { targetTable } from './targets.js';

const { values: options } = parseArgs({
  options: {
    ...outputOptions,
    shape: { type: 'string', default: shapes.map(({ name }) => name).join() },
    threads: { type: 'string', default: '1,2' },
    only: { type: 'string', default: '' },
  },
});
const chosenShapes = options.shape.split(',').map(name => shapeNamed('--shape', name));
const chosenThreads = options.threads.split(',').map(Number);
const wrong = chosenThreads.find(threads => !contenders.some(contender => contender.threads.includes(threads)));
if (wrong !== undefined) throw new RangeError(`"--threads" expected 1, 2 or both, got ${options.threads}`);

const rows: Row[] = [];
for (const shape of chosenShapes) {
  for (const threads of chosenThreads) {
    const alone = chosenShapes.length * chosenThreads.length === 1;
    rows.push(...(alone ? await timeAll(shape, threads) : timeInChild(shape, threads)));
  }
}
emit(
  rows,
  () => chosenThreads.flatMap(layerTable),
  () => targetTable({ layer: rows }),
);

/** Contenders by shapes, on so many threads. */
function layerTable(threads: number): string[] {
  const names = contenders.map(({ name }) => name).filter(name => rows.some(row => row.contender === name));
  const cells = names.map(name => [
    name,
    ...chosenShapes.map(shape => {
      const found = rows.find(row => row.shape === shape.name && row.contender === name && row.threads === threads);
      if (!found) return '';
      const { medianMs, spread, timesOurs } = found;
      return `${figures(medianMs)} (${spread.map(figures).join('–')}) ${figures(timesOurs)}x`;
    }),
  ]);
  const titles = chosenShapes.map(shape => `${shape.name}, ${figures(flopsOf(shape) / 1e6)} MFLOP`);
  const took = cells.filter(([, ...cells]) => cells.some(cell => cell !== ''));
  const line = `Threads: ${threads}. Median ms (p25–p75), and times ours, which is ${names[0]}:`;
  return [line, '', ...table(['contender', ...titles], took, 1), ''];
}

function timeAll(shape: Shape, threads: number): Promise<Row[]> {
  const chosen = contenders.filter(({ name }) => options.only.split(',').some(part => name.includes(part)));
  const able = chosen.filter(contender => contender.threads.includes(threads));
  return timeTogether(able.map(contender => ({ contender, shape, threads })));
}

function timeInChild({ name }: Shape, threads: number): Row[] {
  const own = ['--shape', name, '--threads', String(threads), '--only', options.only, '--json'];
  const command = [...process.execArgv, fileURLToPath(import.meta.url), ...own];
  return JSON.parse(
    execFileSync(process.execPath, command, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }),
  );
}
