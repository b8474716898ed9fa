/** The backends that the command line knows by name. */
import { referenceF32 } from '../float32.js';
import { reference } from '../moe.js';
import type { Backend } from '../types.js';
import { wasmBackend } from '../wasm/index.js';

const backends: Readonly<Record<string, () => Backend | Promise<Backend>>> = {
  reference: () => reference,
  'reference-f32': () => referenceF32,
  wasm: () => wasmBackend({ target: 'simd' }),
  'wasm-relaxed': () => wasmBackend({ target: 'relaxed' }),
};

export const backendNames = Object.keys(backends);

/**
 * The backend of `--backend`; the reference if none is given.
 *
 * @throws RangeError for an unknown name; Error, with the reason, where the engine cannot run it
 */
export async function backendOf(name = reference.name): Promise<Backend> {
  if (!Object.hasOwn(backends, name)) {
    throw new RangeError(`"--backend" expected ${backendNames.join(' | ')}, got "${name}"`);
  }
  return backends[name]();
}
