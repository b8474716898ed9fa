/** A planted fault: a layer that is right but for one thing, and what the oracle should say of it. */
import type { Finding, Implementation, StageName } from 'xmoe/oracle';
import { layerOfParts, type Parts } from './parts.js';

export interface Fault {
  readonly name: string;
  /** Where it was seen, or what thought of it. */
  readonly source: string;
  /** The stages that are to blame, any of them; or the kind of a finding. */
  readonly blamed: readonly Blame[];
  /** It is in a gradient. */
  readonly gradients: boolean;
  /** A new one each time: some remember their calls. */
  make(): Implementation;
}

export type Blame = StageName | Finding['kind'];

/** Made anew for each implementation, so that what it remembers is its own. */
type Change = Partial<Parts> | (() => Partial<Parts>);

/** The faults of one stage, or finding. */
export function faultsOf(blamed: Blame | readonly Blame[], gradients = false) {
  return (name: string, source: string, change: Change, format: 'f32' | 'f64' = 'f32'): Fault => ({
    name,
    source,
    blamed: typeof blamed === 'string' ? [blamed] : blamed,
    gradients,
    make: () => layerOfParts(name, typeof change === 'function' ? change() : change, format),
  });
}

/** Sources of faults that nobody reported. */
export const XMOE = 'XMoE’s own';
export const OURS = 'thought of here';
