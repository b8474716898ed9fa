/** Time contenders against each other, and print what came of it. */
import { cpus } from 'node:os';
import { relative } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { Bench } from 'tinybench';

/** One contender at one shape; what `--json` prints. */
export interface Row {
  readonly shape: string;
  readonly contender: string;
  readonly threads: number;
  readonly node: string;
  readonly medianMs: number;
  /** The middle half of the samples: 25th and 75th percentile, in ms. */
  readonly spread: readonly [number, number];
  /** This median over ours: 2 is twice as slow as ours. Where ours does not take part, over the fastest. */
  readonly timesOurs: number;
}

/** How long each contender runs, in ms. In each part it runs at least once. */
export interface Timing {
  readonly rounds: number;
  /** In each round. */
  readonly roundMs: number;
  /** Before the first round, unmeasured: engines compile what runs often once more, and better. */
  readonly warmMs: number;
  /** Before each turn: the threads of the one before stop waiting for work. */
  readonly pauseMs: number;
}

/** Calls of some microseconds. */
const SHORT: Timing = { rounds: 5, roundMs: 30, warmMs: 0, pauseMs: 0 };

/**
 * Contenders take turns, so that what slows the machine for a while slows all of them; the samples of all rounds are
 * pooled. The others are divided by `ours`, or by the fastest without one.
 */
export async function compare(
  shape: string,
  contenders: ReadonlyMap<string, () => unknown>,
  ours: string | undefined,
  threads = 1,
  timing = SHORT,
): Promise<Row[]> {
  const turns: Turn[] = [];
  for (const [name, run] of contenders) turns.push({ name, run, async: await warm(run, timing.warmMs), samples: [] });
  for (let round = 0; round < timing.rounds; round++) {
    for (const turn of turns) {
      await setTimeout(timing.pauseMs);
      turn.samples.push(...(await samplesOf(turn, timing.roundMs)));
    }
  }
  for (const { samples } of turns) samples.sort((a, b) => a - b);
  const medians = new Map(turns.map(({ name, samples }) => [name, quantile(samples, 0.5)]));
  const base = ours === undefined ? Math.min(...medians.values()) : medians.get(ours)!;
  return turns.map(({ name, samples }) => {
    const medianMs = medians.get(name)!;
    const spread = [quantile(samples, 0.25), quantile(samples, 0.75)] as const;
    return { shape, contender: name, threads, node: process.version, medianMs, spread, timesOurs: medianMs / base };
  });
}

interface Turn {
  readonly name: string;
  readonly run: () => unknown;
  /** Whether `run` hands over a promise. A call that does not is not awaited: that would cost as much as a small product. */
  readonly async: boolean;
  readonly samples: number[];
}

/** Run for so long, at least once, and tell whether calls hand over promises. */
async function warm(run: () => unknown, ms: number): Promise<boolean> {
  const end = performance.now() + ms;
  for (;;) {
    const result = run();
    await result;
    if (performance.now() >= end) return result instanceof Promise;
  }
}

async function samplesOf({ name, run, async }: Turn, time: number): Promise<readonly number[]> {
  const bench = new Bench({ time, iterations: 1, warmup: false, retainSamples: true, throws: true });
  bench.add(name, run, { async });
  const [{ result }] = async ? await bench.run() : bench.runSync();
  if (result.state !== 'completed') throw new Error(`${name}: ${result.state}`);
  return result.latency.samples!;
}

/** The sample at `share` of the way through, to the nearest. */
function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.round(share * (sorted.length - 1))];
}

/**
 * Print `rows` as JSON, or as a Markdown table under the machine and the command. `flops`: of one run at each shape;
 * `base`: what `timesOurs` counts.
 */
export function report(rows: readonly Row[], flops: ReadonlyMap<string, number>, base = 'times ours'): void {
  if (process.argv.includes('--json')) {
    console.log(JSON.stringify(rows, null, 2));
    return;
  }
  const [script, ...options] = process.argv.slice(1);
  const command = ['node', ...process.execArgv, relative(process.cwd(), script), ...options].join(' ');
  console.log(`${cpus()[0].model}, Node ${process.version}: ${command}\n`);
  console.log(`| shape | contender | threads | median ms | p25–p75 ms | GFLOP/s | ${base} |`);
  console.log('|---|---|---:|---:|---:|---:|---:|');
  for (const { shape, contender, threads, medianMs, spread, timesOurs } of rows) {
    const [p25, p75] = spread.map(figures);
    const gflops = flops.get(shape)! / medianMs / 1e6;
    const times = [figures(medianMs), `${p25}–${p75}`, figures(gflops), figures(timesOurs)];
    console.log(`| ${[shape, contender, threads, ...times].join(' | ')} |`);
  }
}

/** Three figures. */
function figures(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
