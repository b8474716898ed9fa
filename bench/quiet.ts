/** Is the machine quiet? What a fixed loop takes, before and after, and what other processes took meanwhile. */
import { readFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';

/** The share by which a quiet machine may vary. */
const QUIET = 0.05;

export interface Noise {
  readonly quiet: boolean;
  /** One line for people. */
  readonly text: string;
}

/** Look at the machine now, and again when the function that is handed over is called. */
export function watchMachine(): () => Noise {
  const before = probe();
  return () => {
    const after = probe();
    const drift = Math.abs(after.spinMs / before.spinMs - 1);
    const elapsed = (after.time - before.time) * cpus().length;
    const others = Math.max(0, after.busyMs - before.busyMs - (after.ownMs - before.ownMs)) / elapsed;
    const quiet = Math.max(before.spread, after.spread, drift, others) <= QUIET;
    const spin = ({ spinMs, spread, load }: Probe) =>
      `loop ${spinMs.toFixed(2)} ms ± ${percent(spread)}, load ${load.toFixed(2)}`;
    const text = `${quiet ? 'quiet' : 'NOT QUIET'}: ${spin(before)} before; ${spin(after)} after; other processes had ${percent(others)} of the machine`;
    return { quiet, text };
  };
}

interface Probe {
  readonly time: number;
  /** The median time of the loop. */
  readonly spinMs: number;
  /** How far its 25th and 75th percentiles lie apart, over the median. */
  readonly spread: number;
  /** Of the last minute: this process too. */
  readonly load: number;
  /** What all processors worked, and what they did for this process and those that it started, since some time. */
  readonly busyMs: number;
  readonly ownMs: number;
}

function probe(): Probe {
  const times = Array.from({ length: 50 }, () => {
    const start = performance.now();
    spin();
    return performance.now() - start;
  });
  times.sort((a, b) => a - b);
  const [low, median, high] = [times[12], times[25], times[37]];
  const busyMs = cpus().reduce((sum, { times: { user, nice, sys, irq } }) => sum + user + nice + sys + irq, 0);
  const own = process.cpuUsage();
  return {
    time: performance.now(),
    spinMs: median,
    spread: (high - low) / median,
    load: loadavg()[0],
    busyMs,
    ownMs: (own.user + own.system) / 1000 + childrenMs(),
  };
}

/** What processes that this one started and that have ended took: Linux alone says so. */
function childrenMs(): number {
  const TICK_MS = 10;
  try {
    // After the name in parentheses, field 3 and on: cutime and cstime are 16 and 17.
    const fields = readFileSync('/proc/self/stat', 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return TICK_MS * (Number(fields[16 - 3]) + Number(fields[17 - 3]));
  } catch {
    return 0;
  }
}

/** Steps of a linear congruential generator: integers in registers, each waiting for the one before. */
function spin(): number {
  let state = 1;
  for (let i = 0; i < 2_000_000; i++) state = (Math.imul(state, 1664525) + 1013904223) | 0;
  return state;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
