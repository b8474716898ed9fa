/** The verdict on one call: each stage of what an implementation said, judged on its own inputs to that stage. */
import { show, unexpected } from '../../check.js';
import type { Arithmetic } from '../bounds/arithmetic.js';
import type { Conformance, LayerCall, Outputs, StageVerdicts } from '../types.js';
import { judgeOf } from './judge.js';
import { judgeDispatch } from './judge-dispatch.js';
import { judgeExperts } from './judge-experts.js';
import { judgeGradients } from './judge-gradients.js';
import { judgeLoss } from './judge-loss.js';
import { judgeRouting } from './judge-routing.js';
import { judgeSelection } from './judge-selection.js';
import { observe } from './observe.js';

/**
 * Judge what an implementation said of one call.
 *
 * Partial  what is missing, of another shape or not finite is replaced by the reference's own for the stages that follow
 * Decisions equal to the reference's on the same numbers, or admissible by margin (rules M1-M3), or wrong
 * Floats   within bounds of running error analysis for `arithmetic`; no tolerance is chosen
 * Hostile  any tensors may come: a wrong shape, kind or value is a finding, never an error
 * @throws TypeError if `outputs` is no Map
 */
export function conform(outputs: Outputs, call: LayerCall, arithmetic: Arithmetic): Conformance {
  if (!(outputs instanceof Map)) throw unexpected(TypeError, 'outputs', 'a Map of tensors by name', show(outputs));
  const judge = judgeOf(call, arithmetic, observe(outputs, call));
  const routing = judgeRouting(judge);
  const selection = judgeSelection(judge, routing.compared);
  const dispatch = judgeDispatch(judge, selection, routing.compared);
  const experts = judgeExperts(judge, routing, selection, dispatch);
  const onDecisions = [dispatch.selection ?? selection.verdict, dispatch.verdict];
  const stages: StageVerdicts[] = [
    ...routing.verdicts,
    ...onDecisions.map(judged => (judged.stage === experts.decision?.stage ? experts.decision : judged)),
    ...experts.verdicts,
    judgeLoss(judge, routing),
    ...judgeGradients(judge, routing, experts.forward),
  ];
  const blamed = stages.find(({ verdict }) => verdict === 'disagree')?.stage;
  const isFaulty = blamed !== undefined || judge.findings.some(({ severity }) => severity === 'fault');
  return {
    verdict: isFaulty ? 'does not conform' : 'conforms',
    stages,
    findings: judge.findings,
    ...(blamed !== undefined && { blamed }),
  };
}
