/** Which of a module's kernels compute. The bits are the same: it is a matter of time alone. */
import { numDifferences, outputsOf, workload } from './exercise.js';
import type { KernelModule, KernelSet } from './kernels.js';
import { heat, isFaster } from './probe.js';

/** For registers of 128 bits. */
export function narrowSet(): KernelSet {
  return { panelWidth: 8, tileRows: isRecent() ? 6 : 4 };
}

/** For an engine that joins neighbouring vectors into 256 bits. */
export const wideSet: KernelSet = { panelWidth: 16, tileRows: 6 };

/**
 * A module for experts in int8, with `int8Dot` where that is faster and gives the same bits: some tenths of a second to find
 * out. It depends on the machine, of which an engine says nothing.
 */
export async function withInt8Dot(module: KernelModule): Promise<KernelModule> {
  if (module.target === 'simd' || !isRecent()) return module;
  const dot: KernelModule = { ...module, set: { ...module.set, int8Dot: true } };
  const [round, dotRound] = [module, dot].map(which => workload(which, 'int8'));
  await heat(round);
  await heat(dotRound);
  if (!isFaster(dotRound, round)) return module;
  return numDifferences(outputsOf(dot, 'int8'), outputsOf(module, 'int8')) === 0 ? dot : module;
}

/**
 * Whether the engine is V8 as of Node 24 and Chromium 136, or as young: its compiler keeps the sums of six rows in registers,
 * and its baseline compiler multiplies bytes rightly. A version says nothing of other engines, so their age is taken from
 * what came to JavaScript at the same time.
 */
function isRecent(): boolean {
  return 'Float16Array' in globalThis;
}
