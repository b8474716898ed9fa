/** Time contenders against each other, and print what came of it. */
import { cpus } from 'node:os';
import { relative } from 'node:path';
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
  /** This median over ours: 2 is twice as slow as ours. */
  readonly timesOurs: number;
}

const ROUNDS = 5;
/** Each contender runs this long in a round, in ms, and at least once. */
const ROUND_MS = 30;

/**
 * Contenders take turns, so that what slows the machine for a while slows all of them; the samples of all rounds are
 * pooled. `ours` is the contender that the others are divided by.
 */
export function compare(shape: string, contenders: ReadonlyMap<string, () => void>, ours: string): Row[] {
  const samples = new Map([...contenders.keys()].map(name => [name, [] as number[]]));
  for (let round = 0; round < ROUNDS; round++) {
    const bench = new Bench({ time: ROUND_MS, iterations: 1, warmup: false, retainSamples: true, throws: true });
    for (const [name, run] of contenders) bench.add(name, run, { async: false });
    for (const { name, result } of bench.runSync()) {
      if (result.state === 'completed') for (const ms of result.latency.samples!) samples.get(name)!.push(ms);
    }
  }
  for (const times of samples.values()) times.sort((a, b) => a - b);
  const oursMs = quantile(samples.get(ours)!, 0.5);
  return [...samples].map(([contender, times]) => {
    const medianMs = quantile(times, 0.5);
    const spread = [quantile(times, 0.25), quantile(times, 0.75)] as const;
    return { shape, contender, threads: 1, node: process.version, medianMs, spread, timesOurs: medianMs / oursMs };
  });
}

/** The sample at `share` of the way through, to the nearest. */
function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.round(share * (sorted.length - 1))];
}

/** Print `rows` as JSON, or as a Markdown table under the machine and the command. `flops`: of one run at each shape. */
export function report(rows: readonly Row[], flops: ReadonlyMap<string, number>): void {
  if (process.argv.includes('--json')) {
    console.log(JSON.stringify(rows, null, 2));
    return;
  }
  const [script, ...options] = process.argv.slice(1);
  const command = ['node', ...process.execArgv, relative(process.cwd(), script), ...options].join(' ');
  console.log(`${cpus()[0].model}, Node ${process.version}: ${command}\n`);
  console.log('| shape | contender | median ms | p25–p75 ms | GFLOP/s | times ours |');
  console.log('|---|---|---:|---:|---:|---:|');
  for (const { shape, contender, medianMs, spread, timesOurs } of rows) {
    const [p25, p75] = spread.map(figures);
    const gflops = flops.get(shape)! / medianMs / 1e6;
    const cells = [shape, contender, figures(medianMs), `${p25}–${p75}`, figures(gflops), figures(timesOurs)];
    console.log(`| ${cells.join(' | ')} |`);
  }
}

/** Three figures. */
function figures(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
