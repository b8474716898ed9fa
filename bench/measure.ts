/** Time contenders against each other. */
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

/** What takes its turns: a call that is timed here, or something that times itself. */
export interface Entry {
  readonly shape: string;
  readonly contender: string;
  readonly threads: number;
  /** The one that the others of its shape are divided by. */
  readonly ours?: boolean;
  readonly run: (() => unknown) | Sampler;
}

/** Something that times itself, a program of its own say: samples in ms, taken for about so many ms. */
export interface Sampler {
  sample(ms: number): readonly number[] | Promise<readonly number[]>;
}

/** How long each contender runs, in ms. In each part it runs at least once. */
export interface Timing {
  readonly rounds: number;
  /** In each round. */
  readonly roundMs: number;
  /**
   * Before the first round, unmeasured: engines compile what runs often once more, and better. Few calls in that time are
   * not often: then it takes up to four times as long.
   */
  readonly warmMs: number;
  /** Before each turn: the threads of the one before stop waiting for work. */
  readonly pauseMs: number;
}

/** Calls of some microseconds. */
const SHORT: Timing = { rounds: 5, roundMs: 30, warmMs: 100, pauseMs: 0 };
/** Calls of some milliseconds, on threads. */
export const LONG: Timing = { rounds: 5, roundMs: 250, warmMs: 500, pauseMs: 50 };

/** Calls after which engines have seen enough. */
const OFTEN = 10;

/** Whoever has had so much time, in ms, and so many samples, sits further rounds out. */
const ENOUGH = { ms: 4000, samples: 3 };

/** `takeTurns` for one shape on one number of threads. */
export function compare(
  shape: string,
  contenders: ReadonlyMap<string, Entry['run']>,
  ours: string | undefined,
  threads = 1,
  timing = SHORT,
): Promise<Row[]> {
  const entryOf = ([contender, run]: [string, Entry['run']]): Entry => {
    return { shape, contender, threads, ours: contender === ours, run };
  };
  return takeTurns([...contenders].map(entryOf), timing);
}

/**
 * Contenders take turns, so that what slows the machine for a while slows all of them; the samples of all rounds are
 * pooled. The others of a shape are divided by ours, or by the fastest without one.
 */
export async function takeTurns(entries: readonly Entry[], timing: Timing): Promise<Row[]> {
  const turns: Turn[] = [];
  for (const entry of entries) turns.push({ entry, async: await warm(entry, timing.warmMs), samples: [] });
  for (let round = 0; round < timing.rounds; round++) {
    for (const turn of turns) {
      if (hasEnough(turn)) continue;
      await setTimeout(timing.pauseMs);
      turn.samples.push(...(await samplesOf(turn, timing.roundMs)));
    }
  }
  for (const { samples } of turns) samples.sort((a, b) => a - b);
  return turns.map(({ entry: { shape, contender, threads }, samples }) => {
    const medianMs = median(samples);
    const spread = [quantile(samples, 0.25), quantile(samples, 0.75)] as const;
    const base = turns.find(({ entry }) => entry.shape === shape && entry.ours)?.samples;
    const rivals = turns.filter(({ entry }) => entry.shape === shape).map(turn => median(turn.samples));
    const timesOurs = medianMs / (base ? median(base) : Math.min(...rivals));
    return { shape, contender, threads, node: process.version, medianMs, spread, timesOurs };
  });
}

interface Turn {
  readonly entry: Entry;
  /** Whether `run` hands over a promise. A call that does not is not awaited: that would cost as much as a small product. */
  readonly async: boolean;
  readonly samples: number[];
}

function hasEnough({ samples }: Turn): boolean {
  return samples.length >= ENOUGH.samples && samples.reduce((sum, ms) => sum + ms, 0) >= ENOUGH.ms;
}

/** Run for about so long, at least once, and tell whether calls hand over promises. */
async function warm({ run }: Entry, ms: number): Promise<boolean> {
  if (typeof run !== 'function') {
    await run.sample(ms);
    return false;
  }
  const start = performance.now();
  for (let calls = 1; ; calls++) {
    const result = run();
    await result;
    const elapsed = performance.now() - start;
    if (elapsed >= (calls < OFTEN ? 4 * ms : ms)) return result instanceof Promise;
  }
}

async function samplesOf({ entry: { contender, run }, async }: Turn, time: number): Promise<readonly number[]> {
  if (typeof run !== 'function') return run.sample(time);
  const bench = new Bench({ time, iterations: 1, warmup: false, retainSamples: true, throws: true });
  bench.add(contender, run, { async });
  const [{ result }] = async ? await bench.run() : bench.runSync();
  if (result.state !== 'completed') throw new Error(`${contender}: ${result.state}`);
  return result.latency.samples!;
}

function median(sorted: readonly number[]): number {
  return quantile(sorted, 0.5);
}

/** The sample at `share` of the way through, to the nearest. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.round(share * (sorted.length - 1))];
}
