/** The kernels that the engine can run, and threads: what a backend, or a runtime, computes on. */
import type { ExpertFormat } from './formats.js';
import type { Threads } from './held.js';
import { openThreads } from './open-threads.js';
import type { EngineOptions, WasmInfo } from './options.js';
import { chooseTarget } from './target.js';

/**
 * @param options that passed `checkEngineOptions`
 * @throws RangeError for options that exclude each other; Error, saying what the engine lacks, where it cannot run what is
 *         required. Threads and vectors of 256 bits that cannot be had are no error: `info` says why
 */
export async function openEngine(
  options: EngineOptions,
  experts: ExpertFormat,
): Promise<{ threads: Threads; info: WasmInfo }> {
  const { features = {}, deterministic = false, threads: numThreads = 1 } = options;
  const { target, notRelaxed } = await chooseTarget(features.relaxedSimd, deterministic);
  const { threads, notThreads, notRevectorized } = await openThreads({
    target,
    experts,
    revectorize: features.revectorize ?? false,
    numThreads,
  });
  const notUsed = {
    ...(notRelaxed !== undefined && { relaxedSimd: notRelaxed }),
    ...(notRevectorized !== undefined && { revectorize: notRevectorized }),
    ...(notThreads !== undefined && { threads: notThreads }),
  };
  const info = {
    target,
    threads: threads.numThreads,
    kernels: threads.module.set,
    revectorized: notRevectorized === undefined,
    experts,
    notUsed,
  };
  return { threads, info };
}
