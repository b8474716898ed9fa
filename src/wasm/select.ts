/** The threshold router, fast: the reference's decisions without sorting what nobody takes. */
import { dispatch, planWithinCapacity } from '../dispatch.js';
import { row } from '../matrix.js';
import { first, isReal } from '../selection/selection.js';
import type { Config, DispatchPlan, Floats, Matrix, Routing, RoutingInputs, Selection } from '../types.js';

/** As the reference dispatches these probabilities, decision for decision. */
export function fastDispatch(routing: Routing, inputs: RoutingInputs, config: Config): DispatchPlan {
  const { router, threshold } = config;
  if (router !== 'threshold' || threshold! > 1) return dispatch(routing, inputs, config);
  return planWithinCapacity(selectFast(routing.probs, threshold!, inputs.tokenMask), routing, inputs, config);
}

/** `selectThreshold` for τ ≤ 1: the best expert again and again, until the mass is reached. */
function selectFast(probs: Matrix, threshold: number, tokenMask: Uint8Array | undefined): Selection {
  const { rows: numTokens, cols: numExperts } = probs;
  const tokenOffsets = new Int32Array(numTokens + 1);
  const expertIndex: number[] = [];
  const left = new Float64Array(numExperts);
  for (let t = 0; t < numTokens; t++) {
    if (isReal(tokenMask, t)) {
      left.set(row(probs, t));
      selectInto(expertIndex, left, threshold);
    }
    tokenOffsets[t + 1] = expertIndex.length;
  }
  return { numTokens, numExperts, tokenOffsets, expertIndex: Int32Array.from(expertIndex) };
}

/** Appends one token's experts; taken ones are marked below every probability in `left`. */
function selectInto(expertIndex: number[], left: Floats, threshold: number): void {
  let mass = 0;
  let count = 0;
  do {
    const e = first(left);
    expertIndex.push(e);
    mass += left[e];
    left[e] = -1;
    count++;
  } while (count < left.length && mass < threshold);
}
