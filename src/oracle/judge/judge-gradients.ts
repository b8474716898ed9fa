/** Each gradient by name, on the implementation's own decisions and probabilities. */
import type { DispatchPlan } from '../../types.js';
import type { Approximate } from '../bounds/approximate.js';
import type { ForwardApprox } from '../bounds/forward-approx.js';
import { type GradientsApprox, gradientsApprox } from '../bounds/gradients-approx.js';
import type { StageName, StageVerdicts } from '../types.js';
import { byToken, type PlaceOf } from './difference.js';
import { type Judge, judgeFloats, notJudged } from './judge.js';
import type { JudgedRouting } from './judge-routing.js';
import { expectedShapes } from './observe.js';

export interface OwnForward {
  readonly plan: DispatchPlan;
  readonly experts: ForwardApprox;
  /** The combine weights that follow from the implementation's probabilities. [T, E] */
  readonly weights: Approximate;
}

export function judgeGradients(judge: Judge, routing: JudgedRouting, forward: OwnForward | undefined): StageVerdicts[] {
  const { call, arithmetic, observation } = judge;
  if (!call.gradY) return [];
  const names = [...expectedShapes(call).keys()].filter(name => name.startsWith('grad.')) as StageName[];
  let expected: GradientsApprox | undefined;
  return names.map(name => {
    if (arithmetic.name === 'int8') return notJudged(name, 'no bounds for gradients in int8');
    if (!forward && observation.tensors.has(name)) return notJudged(name, 'no decisions to make them of');
    return judgeFloats(judge, name, name, () => gradient(name), arithmetic.store, placesOf(judge, name));
  });

  function gradient(name: string): Approximate {
    const { logits, probs } = routing.compared;
    const { value, error } = routing.softmaxOfOwn; // from which both the own probabilities and those made anew may be off
    const anew = probs.error.map((e, i) =>
      Math.max(e, error[i] + Math.min(error[i], Math.abs(value.data[i] - probs.value.data[i]))),
    );
    const compared = { logits, probs: { value: probs.value, error: anew } };
    const { plan, experts, weights } = forward!;
    expected ??= gradientsApprox(judge, compared, plan, experts, weights);
    return expected.get(name)!;
  }
}

/** For x by token, for the router by expert, for the experts' weights by expert and column within its own. */
function placesOf({ call }: Judge, name: string): PlaceOf {
  if (name === 'grad.x') return byToken(call.x.cols, 'column');
  const shape = expectedShapes(call).get(name)!;
  const size = shape.slice(1).reduce((product, length) => product * length, 1);
  return index => ({ expert: Math.floor(index / size), column: index % size });
}
