/** The backends that the command line knows by name. */
import { referenceF32 } from '../float32.js';
import { reference } from '../moe.js';
import type { Backend } from '../types.js';

const backends = new Map([reference, referenceF32].map(backend => [backend.name, backend]));

export const backendNames = [...backends.keys()];

/** The backend of `--backend`; the reference if none is given. */
export function backendOf(name: string | undefined): Backend {
  const backend = backends.get(name ?? reference.name);
  if (!backend) throw new RangeError(`"--backend" expected ${backendNames.join(' | ')}, got "${name}"`);
  return backend;
}
