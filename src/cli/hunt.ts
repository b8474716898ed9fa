/** The search of `xmoe check`, with its progress, its way out, and what it leaves behind. */
import type { WantedRecipes } from '../cases/index.js';
import { type Implementation, type LayerCall, probe, search } from '../oracle/index.js';
import { type Arguments, writableFolder } from './arguments.js';
import type { CheckReport } from './check-report.js';
import { replayLine, saveFailure } from './failure-file.js';
import { searchProgress } from './search-progress.js';
import { wantedOf } from './wanted.js';

/** Random calls. Ctrl-C ends the search, and a command that is asked; a second one ends everything at once. */
export async function hunt(
  implementation: Implementation,
  args: Arguments,
  argv: readonly string[],
): Promise<CheckReport> {
  const seed = args.number('seed', { min: 0, max: 2 ** 32 - 1, integer: true }) ?? 0;
  const runs = args.number('runs', { min: 0, integer: true }) ?? 2000;
  const shard = shardOf(args.text('shard'));
  const wanted = wantedOf(args);
  const folder = writableFolder('--save', args.text('save') ?? '.');
  const gradients = args.flag('grad');
  const progress = searchProgress(implementation.name);
  const stop = new AbortController();
  const onInterrupt = () => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
    if (argv.includes('--')) implementation.close?.();
  };
  process.on('SIGINT', onInterrupt);
  const started = performance.now();
  try {
    const found = await search(implementation, {
      ...{ seed, runs, wanted, gradients, signal: stop.signal, onProgress: progress.show },
      ...(shard && { shard }),
    });
    progress.end();
    const what = `seed ${seed}${shard ? `, shard ${shard.index} of ${shard.count}` : ''}`;
    const { name, arithmetic } = implementation;
    const { tally, interrupted, failure } = found;
    const seconds = (performance.now() - started) / 1000;
    // a program that crashed or hung would do so at each probe
    const mayProbe =
      !interrupted && failure?.conformance.stages.length !== 0 && wanted.routers?.includes('threshold') !== false;
    const probes = mayProbe ? await probe(taking(implementation, wanted)) : undefined;
    const report = { name, arithmetic, what, seconds, tally, interrupted, ...(probes && { probes }) };
    if (!failure) return report;
    const file = saveFailure(folder, seed, failure);
    const { smallest } = failure;
    return { ...report, shown: { name: file, ...smallest }, failure: { ...failure, replay: replayLine(argv, file) } };
  } finally {
    progress.end();
    process.removeListener('SIGINT', onInterrupt);
  }
}

/** The same, refusing the activations that are not wanted: the probes take one that is not refused. */
function taking(implementation: Implementation, { activations }: WantedRecipes): Implementation {
  const isWanted = ({ config }: LayerCall) => activations?.includes(config.activation) !== false;
  return { ...implementation, refuses: call => (isWanted(call) ? implementation.refuses?.(call) : 'not wanted') };
}

function shardOf(text: string | undefined): { index: number; count: number } | undefined {
  if (text === undefined) return undefined;
  const [, index, count] = /^(\d+)\/(\d+)$/.exec(text)?.map(Number) ?? [];
  if (index >= 1 && index <= count) return { index, count };
  throw new RangeError(`"--shard" expected i/n with i from 1 to n, got "${text}"`);
}
