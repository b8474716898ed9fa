/** What a backend computes on: kernels chosen for the engine, and threads as many as wanted and can be had. */
import type { ExpertFormat } from './formats.js';
import type { Threads } from './held.js';
import { narrowSet, withInt8Dot } from './kernel-set.js';
import { compileKernels, type KernelModule, type Target } from './kernels.js';
import { Pool } from './pool.js';
import { revectorizedKernels } from './revectorize.js';
import { workerStarter } from './start-worker.js';

export interface Wanted {
  readonly target: Target;
  readonly experts: ExpertFormat;
  readonly revectorize: boolean;
  readonly numThreads: number;
}

/** With the reasons why vectors of 256 bits, and more threads than one, are not in use. */
export interface OpenedThreads {
  readonly threads: Threads;
  readonly notRevectorized: string | undefined;
  readonly notThreads: string | undefined;
}

export async function openThreads(wanted: Wanted): Promise<OpenedThreads> {
  const { experts, numThreads } = wanted;
  const startWorker = numThreads === 1 ? 'options.threads is 1' : await workerStarter();
  if (typeof startWorker === 'string') return openOne(wanted, startWorker);
  const { module, notRevectorized } = await chooseKernels(wanted, true);
  const pool = await Pool.open(module, numThreads, startWorker);
  if (typeof pool === 'string') return openOne(wanted, pool);
  return { threads: { module, numThreads, pool, experts }, notRevectorized, notThreads: undefined };
}

async function openOne(wanted: Wanted, notThreads: string): Promise<OpenedThreads> {
  const { module, notRevectorized } = await chooseKernels(wanted, false);
  const threads = { module, numThreads: 1, pool: undefined, experts: wanted.experts };
  return { threads, notRevectorized, notThreads };
}

/** The wide kernels where they were asked for and can be had, else the narrow ones and the reason. */
async function chooseKernels(
  { target, experts, revectorize }: Wanted,
  isShared: boolean,
): Promise<{ module: KernelModule; notRevectorized: string | undefined }> {
  const wide = revectorize
    ? await revectorizedKernels(target, isShared, experts)
    : 'options.features.revectorize is not asked for';
  if (typeof wide !== 'string') return { module: wide, notRevectorized: undefined };
  const module = await compileKernels(target, isShared, narrowSet());
  return { module: experts === 'int8' ? await withInt8Dot(module) : module, notRevectorized: wide };
}
