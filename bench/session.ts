/** Contenders at shapes, in one process: opened, held against the reference, and timed in turns. */
import { type Contender, type Runner, Unavailable } from './contenders/contender.js';
import { type Layer, type LayerRouter, layerOf } from './layers.js';
import { type Entry, LONG, type Row, type Timing, takeTurns } from './measure.js';
import { boundOf } from './precision.js';
import { watchMachine } from './quiet.js';
import { note } from './report.js';
import type { Shape } from './shapes.js';

/** Who does what, on how many threads. */
export interface Part {
  readonly contender: Contender;
  readonly shape: Shape;
  readonly threads: number;
}

/**
 * Time all parts against each other. All are opened before any is timed, in order; who is not available is left out, with
 * the reason on standard error. The machine is looked at before and after.
 *
 * @param others that take turns with them, as they are
 */
export async function timeTogether(
  parts: readonly Part[],
  timing: Timing = LONG,
  others: readonly Entry[] = [],
): Promise<Row[]> {
  const layers = new Map<string, Layer>();
  const entries: Entry[] = [...others];
  const runners: Runner[] = [];
  for (const part of parts) {
    const { contender, shape, threads } = part;
    const key = JSON.stringify([shape, contender.router]);
    const layer = layers.get(key) ?? newLayer(shape, contender.router);
    layers.set(key, layer);
    const runner = await open(part, layer);
    if (!runner) continue;
    runners.push(runner);
    let step = 0;
    const run = () => runner.run(step++ % layer.steps.length);
    entries.push({ shape: shape.name, contender: contender.name, threads, ours: contender.ours ?? false, run });
  }
  const noise = watchMachine();
  const rows = await takeTurns(entries, timing);
  const names = [...new Set(parts.map(({ shape }) => shape.name))];
  note(`${names.length < 3 ? names.join() : `${names[0]} … ${names.at(-1)}`}: ${noise().text}`);
  for (const runner of runners) await runner.close();
  return rows;
}

async function open({ contender, shape, threads }: Part, layer: Layer): Promise<Runner | undefined> {
  try {
    const runner = await contender.open(layer, threads);
    const error = await check(contender, runner, layer);
    note(`${shape.name}, threads ${threads}: ${contender.name}, relative error ${error.toExponential(1)}`);
    return runner;
  } catch (error) {
    const isTheirs = error instanceof WrongAnswer && !contender.name.startsWith('xmoe');
    if (!(error instanceof Unavailable || isTheirs)) throw error;
    note(`${shape.name}, threads ${threads}: ${contender.name} left out: ${error.message}`);
    return undefined;
  }
}

/** Of others it is told, and they are left out; of ours it ends the bench. */
class WrongAnswer extends Error {}

/**
 * ‖y − reference‖ / ‖reference‖ over all steps, which shows the precision that a contender computes in.
 *
 * @throws WrongAnswer where an element is farther from the reference than that precision may be
 */
async function check({ precision = 'f32' }: Contender, runner: Runner, layer: Layer): Promise<number> {
  let [squaredError, squared] = [0, 0];
  for (const [step, { expected }] of layer.steps.entries()) {
    const bound = boundOf(layer, step, precision);
    const y = await runner.run(step);
    if (y.length !== expected.length) throw new WrongAnswer(`expected ${expected.length} numbers, got ${y.length}`);
    for (let i = 0; i < expected.length; i++) {
      const error = Math.abs(y[i] - expected[i]);
      if (!(error <= bound[i])) {
        const { name: shape, dModel } = layer.shape;
        const where = `${shape}, step ${step}, y[${Math.floor(i / dModel)}, ${i % dModel}]`;
        throw new WrongAnswer(`${where}: expected ${expected[i]} ± ${bound[i]}, got ${y[i]}`);
      }
      squaredError += error ** 2;
      squared += expected[i] ** 2;
    }
  }
  return Math.sqrt(squaredError / squared);
}

function newLayer(shape: Shape, router: LayerRouter): Layer {
  const layer = layerOf(shape, router);
  const kept = layer.steps.map(({ plan }) => plan.tokenIndex.length);
  const rowsPerExpert = layer.steps.flatMap(({ plan: { expertOffsets } }) =>
    Array.from(expertOffsets.subarray(1), (last, e) => last - expertOffsets[e]),
  );
  const total = kept.reduce((sum, n) => sum + n, 0);
  const [least, most] = [Math.min(...rowsPerExpert), Math.max(...rowsPerExpert)];
  note(
    `${shape.name}: router ${router}, ${total} kept pairs in ${kept.length} calls, ${least} to ${most} rows for an expert`,
  );
  return layer;
}
