/**
 * How long does a layer take here, and how long elsewhere? Each shape and number of threads has a process of its own, in
 * which the contenders take turns.
 *
 * Options  --shape S1,S2  --threads 1,2  --only PARTS,OF,NAMES  --json
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Contender, Runner, Task } from './contenders/contender.js';
import { contenders } from './contenders/index.js';
import { type Layer, type LayerRouter, layerOf } from './layers.js';
import { compare, type Row, report, type Timing } from './measure.js';
import { watchMachine } from './quiet.js';
import { type Shape, shapes } from './shapes.js';

const TIMING: Timing = { rounds: 5, roundMs: 250, warmMs: 500, pauseMs: 50 };
const tasks: readonly Task[] = ['experts', 'layer'];

const { values: options } = parseArgs({
  options: {
    shape: { type: 'string', default: shapes.map(({ name }) => name).join() },
    threads: { type: 'string', default: '1,2' },
    only: { type: 'string', default: '' },
    json: { type: 'boolean' },
  },
});
const chosenShapes = options.shape.split(',').map(shapeNamed);
const chosenThreads = options.threads.split(',').map(Number);
const chosen = contenders.filter(({ name }) => options.only.split(',').some(part => name.includes(part)));

const rows: Row[] = [];
for (const shape of chosenShapes) {
  for (const threads of chosenThreads) {
    const alone = chosenShapes.length * chosenThreads.length === 1;
    rows.push(...(alone ? await timeAll(shape, threads) : timeInChild(shape, threads)));
  }
}
const flops = new Map(shapes.flatMap(shape => tasks.map(task => [label(shape, task), flopsOf(shape, task)] as const)));
report(rows, flops, chosen.some(({ ours }) => ours) ? 'times ours' : 'times the fastest');

function timeInChild({ name }: Shape, threads: number): Row[] {
  const own = ['--shape', name, '--threads', String(threads), '--only', options.only, '--json'];
  const command = [...process.execArgv, fileURLToPath(import.meta.url), ...own];
  return JSON.parse(
    execFileSync(process.execPath, command, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }),
  );
}

async function timeAll(shape: Shape, threads: number): Promise<Row[]> {
  const able = chosen.filter(contender => contender.threads.includes(threads));
  const layers = new Map<LayerRouter, Layer>();
  for (const { router } of able) if (!layers.has(router)) layers.set(router, layerOf(shape, router));
  for (const { config, steps } of layers.values()) note(`${shape.name}: ${describe(config.router, steps)}`);

  const times: Row[] = [];
  for (const task of tasks) {
    const entered = able.filter(contender => contender.task === task);
    if (entered.length > 0) times.push(...(await timeTask(shape, task, entered, layers, threads)));
  }
  return times;
}

async function timeTask(
  shape: Shape,
  task: Task,
  entered: readonly Contender[],
  layers: ReadonlyMap<LayerRouter, Layer>,
  threads: number,
): Promise<Row[]> {
  const call = `${label(shape, task)}, threads ${threads}`;
  const runners = new Map<string, Runner>();
  const runs = new Map<string, () => unknown>();
  for (const contender of entered) {
    const layer = layers.get(contender.router)!;
    const runner = await contender.open(layer, threads);
    const error = await check(contender, runner, layer);
    note(`${call}: ${contender.name}, relative error ${error.toExponential(1)}`);
    let step = 0;
    runners.set(contender.name, runner);
    runs.set(contender.name, () => runner.run(step++ % layer.steps.length));
  }
  const noise = watchMachine();
  const ours = entered.find(contender => contender.ours)?.name;
  const times = await compare(label(shape, task), runs, ours, threads, TIMING);
  note(`${call}: ${noise().text}`);
  for (const runner of runners.values()) await runner.close();
  return times;
}

/**
 * ‖y − reference‖ / ‖reference‖ over all steps, which shows the precision that a contender computes in.
 *
 * @throws Error where an element is farther from the reference than float32 may be
 */
async function check({ name }: Contender, runner: Runner, { shape, steps }: Layer): Promise<number> {
  let [squaredError, squared] = [0, 0];
  for (const [step, { expected, bound }] of steps.entries()) {
    const y = await runner.run(step);
    if (y.length !== expected.length) throw new Error(`${name}: expected ${expected.length} numbers, got ${y.length}`);
    for (let i = 0; i < expected.length; i++) {
      const error = Math.abs(y[i] - expected[i]);
      if (!(error <= bound[i])) {
        const where = `${shape.name}, step ${step}, y[${Math.floor(i / shape.dModel)}, ${i % shape.dModel}]`;
        throw new Error(`${name}, ${where}: expected ${expected[i]} ± ${bound[i]}, got ${y[i]}`);
      }
      squaredError += error ** 2;
      squared += expected[i] ** 2;
    }
  }
  return Math.sqrt(squaredError / squared);
}

function describe(router: string, steps: Layer['steps']): string {
  const kept = steps.map(({ plan }) => plan.tokenIndex.length);
  const rowsPerExpert = steps.flatMap(({ plan: { expertOffsets } }) =>
    Array.from(expertOffsets.subarray(1), (last, e) => last - expertOffsets[e]),
  );
  const total = kept.reduce((sum, n) => sum + n, 0);
  return `router ${router}, ${total} kept pairs in ${steps.length} calls, ${Math.min(...rowsPerExpert)} to ${Math.max(...rowsPerExpert)} rows for an expert`;
}

function label({ name }: Shape, task: Task): string {
  return task === 'layer' ? `${name}, router inside` : name;
}

/** A multiply and an add are 2. */
function flopsOf({ numTokens, expertsPerToken, numExperts, dModel, dFf }: Shape, task: Task): number {
  const router = task === 'layer' ? 2 * numTokens * dModel * numExperts : 0;
  return router + 4 * numTokens * expertsPerToken * dModel * dFf;
}

function shapeNamed(name: string): Shape {
  const shape = shapes.find(candidate => candidate.name === name);
  if (!shape) throw new RangeError(`"--shape" expected some of ${shapes.map(s => s.name).join()}, got ${name}`);
  return shape;
}

/** To standard error: the rows go to standard output. */
function note(line: string): void {
  console.error(line);
}
