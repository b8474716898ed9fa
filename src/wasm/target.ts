/** Which of the two targets runs: what was asked for, as far as the engine has it. */

import { nodeProcess, setV8Flag } from '../node.js';
import { hasFeature } from './engine.js';
import type { Target } from './kernels.js';

export interface TargetChoice {
  readonly target: Target;
  /** Why it is not target `relaxed`. */
  readonly notRelaxed: string | undefined;
}

/**
 * @param relaxedSimd `WasmFeatures.relaxedSimd`
 * @throws Error, saying what the engine lacks, where it cannot run what is required
 */
export async function chooseTarget(
  relaxedSimd: boolean | 'enable' | undefined,
  deterministic: boolean,
): Promise<TargetChoice> {
  if (!hasFeature('simd')) throw new Error('"engine" expected WebAssembly SIMD, got one without it');
  const isRequired = relaxedSimd === true || relaxedSimd === 'enable';
  if (isRequired && deterministic) {
    throw new RangeError(
      `"options.features.relaxedSimd" expected false or none where options.deterministic is true, got ${relaxedSimd}`,
    );
  }
  if (relaxedSimd === 'enable') await enableRelaxedSimd();
  if (!hasFeature('relaxedSimd')) {
    if (isRequired) throw new Error(`"engine" expected relaxed SIMD, got ${LACKS_RELAXED}`);
    return { target: 'simd', notRelaxed: LACKS_RELAXED };
  }
  if (deterministic) return { target: 'simd', notRelaxed: 'options.deterministic is true' };
  if (relaxedSimd === false) return { target: 'simd', notRelaxed: 'options.features.relaxedSimd is false' };
  return { target: 'relaxed', notRelaxed: undefined };
}

const LACKS_RELAXED =
  "an engine without it (Node 22 and later have it; Node 20 with features: { relaxedSimd: 'enable' } or --experimental-wasm-relaxed-simd)";

/** Node 20 has it behind a flag. Where it is there anyway, nothing is set. */
async function enableRelaxedSimd(): Promise<void> {
  if (!hasFeature('relaxedSimd') && nodeProcess()) await setV8Flag('--experimental-wasm-relaxed-simd');
}
