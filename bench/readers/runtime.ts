/** Ours: the whole model in WebAssembly, with each choice of kernels that this engine may have. */
import { openRuntime, type Runtime, type RuntimeOptions } from 'xmoe/runtime';
import { Unavailable } from '../contenders/contender.js';
import type { Precision } from '../precision.js';
import type { ReaderContender } from './reader.js';

interface Variant {
  readonly name: string;
  readonly precision: Precision;
  readonly options: RuntimeOptions;
}

/** The others are divided by the first: what a user gets without an option, but for Node 20, where relaxed SIMD is one. */
export const variants: readonly Variant[] = [false, true].flatMap(revectorize =>
  (['relaxed', 'simd', 'f16', 'int8'] as const).map((name): Variant => {
    const deterministic = name === 'simd';
    const precision = name === 'f16' || name === 'int8' ? name : 'f32';
    const relaxedSimd = deterministic ? false : 'enable'; // Node 20 has it behind a flag
    return {
      name: `xmoe/runtime ${name}${revectorize ? ' revectorized' : ''}`,
      precision,
      options: { deterministic, weights: precision, features: { relaxedSimd, revectorize } },
    };
  }),
);

export const runtime: readonly ReaderContender[] = variants.map(
  ({ name, precision, options }, i): ReaderContender => ({
    name,
    precision,
    ours: i === 0,
    threads: [1, 2],
    async open({ path }, threads) {
      const opened = await openVariant(path, { ...options, threads });
      const stream = opened.stream();
      return {
        clear: () => stream.clear(),
        read: async ids => (await stream.read(ids, { logits: 'last' })).logits.data,
        close: () => opened.dispose(),
      };
    },
  }),
);

/**
 * The runtime with all that was asked for.
 *
 * @throws Unavailable with its own reason
 */
export async function openVariant(path: string, options: RuntimeOptions): Promise<Runtime> {
  const opened = await openRuntime(path, options).catch((cause: Error) => {
    throw new Unavailable(cause.message, { cause });
  });
  const { threads, revectorized, notUsed } = opened.info;
  if (threads === options.threads && revectorized === options.features?.revectorize) return opened;
  opened.dispose();
  throw new Unavailable(threads === options.threads ? notUsed.revectorize : notUsed.threads);
}
