/** Right gradients but for some of them. */
import type { Trace, Weights } from 'xmoe';
import type { StageName } from 'xmoe/oracle';
import { faultsOf } from './fault.js';
import type { Parts, WithGradY } from './parts.js';

export const ofOne = (stage: StageName) => faultsOf([stage, 'non-finite'], true);

/** The right gradients but for some weights. */
export function weightsChanged(
  change: (grad: Weights, trace: Trace, call: WithGradY) => Partial<Weights>,
): Partial<Parts> {
  return {
    gradients: (right, trace, call) => ({
      ...right,
      weights: { ...right.weights, ...change(right.weights, trace, call) },
    }),
  };
}
