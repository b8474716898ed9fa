/** Random tests that say how to repeat them. Environment: RUNS (cases a property; at least 50), SEED, REPLAY (one failing case). */
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { env, RUNS } from './environment.js';

const SEED = Number(env.SEED ?? Math.random() * 2 ** 32) | 0;

export interface PropertyOptions<T> {
  /** Cases that once failed, tried first. */
  readonly examples?: readonly T[];
  /** A slow property runs this share of RUNS (default 1). */
  readonly share?: number;
}

/**
 * A test that `check` throws for no value of `arbitrary`. `check` calls `reach` with the hostile places that a value
 * came to; `places` lists those that must each be reached at least once in a run.
 */
export function property<T>(
  name: string,
  arbitrary: fc.Arbitrary<T>,
  check: (value: T, reach: (place: string) => void) => void,
  places: readonly string[] = [],
  options: PropertyOptions<T> = {},
): void {
  test(name, t => {
    const { reach, reached } = counter(places);
    const cases = fc.property(arbitrary, value => check(value, reach));
    return judge(name, t, reached, more => fc.check(cases, parametersOf(options, more)));
  });
}

/** The same of a check that takes its time: a failing value is not made smaller. */
export function asyncProperty<T>(
  name: string,
  arbitrary: fc.Arbitrary<T>,
  check: (value: T, reach: (place: string) => void) => Promise<void>,
  places: readonly string[] = [],
  options: PropertyOptions<T> = {},
): void {
  test(name, t => {
    const { reach, reached } = counter(places);
    const cases = fc.asyncProperty(arbitrary, value => check(value, reach));
    return judge(name, t, reached, more => fc.check(cases, { ...parametersOf(options, more), endOnFailure: true }));
  });
}

function counter(places: readonly string[]) {
  const reached = new Map(places.map(place => [place, 0]));
  return { reached, reach: (place: string) => void reached.set(place, (reached.get(place) ?? 0) + 1) };
}

function parametersOf<T>({ share = 1, examples = [] }: PropertyOptions<T>, more: number): fc.Parameters<[T]> {
  const replayed = env.REPLAY;
  return {
    seed: (SEED + more) | 0,
    numRuns: Math.max(50, Math.ceil(RUNS * share)),
    examples: examples.map(example => [example] as [T]),
    ...(replayed === undefined ? {} : { path: replayed, endOnFailure: true }),
  };
}

/** A place that chance missed is looked for this many times more, with the seeds that follow. */
const MOST_MORE = 9;

/** @throws Error with the line that repeats it, where the property failed or missed a place */
async function judge<T>(
  name: string,
  t: TestContext,
  reached: ReadonlyMap<string, number>,
  checkCases: (more: number) => fc.RunDetails<[T]> | Promise<fc.RunDetails<[T]>>,
): Promise<void> {
  const missed = () => [...reached.keys()].filter(place => reached.get(place) === 0);
  let numCases = 0;
  for (let more = 0; more === 0 || (more <= MOST_MORE && missed().length > 0 && env.REPLAY === undefined); more++) {
    const result = await checkCases(more);
    numCases += result.numRuns;
    if (!result.failed) continue;
    const replay = `ONLY='^${name.replace(/[^\w ]/g, '.')}$' SEED=${result.seed} REPLAY=${result.counterexamplePath} npm test`;
    throw new Error(`${fc.defaultReportMessage(result)}\n\n${result.errorInstance}\n\nReplay: ${replay}`);
  }
  const counts = [...reached].map(([place, count]) => `${place} ${count}`).join(', ');
  t.diagnostic(`seed ${SEED}, ${numCases} cases${counts && `; reached: ${counts}`}`);
  if (missed().length > 0 && env.REPLAY === undefined) {
    throw new Error(`no case reached: ${missed().join(', ')} (seed ${SEED}, ${numCases} cases)`);
  }
}
