/** The verdict on one call: each stage of what an implementation said, judged on its own inputs to that stage. */
import { numColumns } from '../selection/routers.js';
import type { DispatchPlan, Routing } from '../types.js';
import { exactly } from './approximate.js';
import type { Arithmetic } from './arithmetic.js';
import { EITHER, IN } from './choices.js';
import { byToken, type PlaceOf } from './difference.js';
import { type Judge, judgeFloats, judgeOf, notJudged, usable, verdict, worseOf } from './judge.js';
import { judgeDispatch } from './judge-dispatch.js';
import { combineApprox, expertsApprox, planOfKept, weightsApprox } from './judge-experts.js';
import { judgeGradients, type OwnForward } from './judge-gradients.js';
import { judgeLoss } from './judge-loss.js';
import { judgeRouting } from './judge-routing.js';
import { judgeSelection } from './judge-selection.js';
import { asMatrix, observe } from './observe.js';
import type { Conformance, LayerCall, Outputs, StageVerdicts } from './types.js';

/**
 * Judge what an implementation said of one call.
 *
 * Partial  what is missing, of another shape or not finite is replaced by the reference's own for the stages that follow
 * Decisions equal to the reference's on the same numbers, or admissible by margin (rules M1-M3), or wrong
 * Floats   within bounds of running error analysis for `arithmetic`; no tolerance is chosen
 * Hostile  any tensors may come: a wrong shape, kind or value is a finding, never an error
 */
export function conform(outputs: Outputs, call: LayerCall, arithmetic: Arithmetic): Conformance {
  const judge = judgeOf(call, arithmetic, observe(outputs, call));
  const routing = judgeRouting(judge);
  const selection = judgeSelection(judge, routing.compared);
  const dispatch = judgeDispatch(judge, selection, routing.compared);
  const experts = judgeExperts(judge, routing, dispatch);
  const stages: StageVerdicts[] = [
    ...routing.verdicts,
    dispatch.selection ?? selection.verdict,
    dispatch.verdict,
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

function judgeExperts(
  judge: Judge,
  { compared }: ReturnType<typeof judgeRouting>,
  dispatch: ReturnType<typeof judgeDispatch>,
): { verdicts: StageVerdicts[]; forward: OwnForward | undefined } {
  const { call, experts, router, arithmetic } = judge;
  const { x, weights, config } = call;
  const routing: Routing = { logits: compared.logits.value, probs: compared.probs.value };
  const isSure = !dispatch.kept.includes(EITHER);
  const kept = isSure ? dispatch.kept : dispatch.kept.map(status => (status === IN ? 1 : 0));
  const plan = planOfKept(kept, x.rows, routing, config);
  const reference = expertsApprox(x, plan, weights, config, experts);

  const misplaced = misplacedRows(judge, plan.tokenIndex.length, isSure);
  const ownOut = misplaced ? undefined : usable(judge, 'expert_out');
  const onExperts =
    misplaced ??
    judgeFloats(judge, 'experts', 'expert_out', () => reference.out, arithmetic.store, rowPlaces(plan, x.cols));
  const out = ownOut ? exactly(asMatrix(ownOut)) : reference.out;

  const expectedWeights = weightsApprox(kept, compared, config, router, experts);
  const onWeights = judgeFloats(
    judge,
    'combine',
    'combine',
    () => expectedWeights,
    arithmetic.store,
    byToken(numColumns(config), 'expert'),
  );
  const ownWeights = usable(judge, 'combine');
  const used = ownWeights ? exactly(asMatrix(ownWeights)) : expectedWeights;
  const onY = judgeFloats(
    judge,
    'combine',
    'y',
    () => combineApprox(out, used, plan, experts),
    arithmetic.store,
    byToken(x.cols, 'column'),
  );
  const onCombine =
    onWeights.verdict === 'not judged' && onY.verdict === 'not judged'
      ? notJudged('combine', 'no combine, no y')
      : worseOf(onWeights, onY);
  const forward = isSure ? { plan, experts: reference, weights: expectedWeights } : undefined;
  return { verdicts: [onExperts, onCombine], forward };
}

/** `expert_out` must have a row for each kept pair. */
function misplacedRows({ observation, findings }: Judge, numRows: number, isSure: boolean): StageVerdicts | undefined {
  const observed = observation.tensors.get('expert_out');
  if (!observed || observed.shape[0] === numRows) return undefined;
  if (!isSure) return notJudged('experts', 'no kept to say which rows expert_out has');
  const detail = `expert_out: expected ${numRows} rows, one for each kept pair, got ${observed.shape[0]}`;
  findings.push({ kind: 'wrong shape', severity: 'fault', stage: 'experts', detail });
  return verdict('experts', 'disagree', detail);
}

/** Token, expert and column of an element of `expert_out`. */
function rowPlaces({ tokenIndex, expertOffsets }: DispatchPlan, cols: number): PlaceOf {
  return index => {
    const i = Math.floor(index / cols);
    let expert = 0;
    while (expertOffsets[expert + 1] <= i) expert++;
    return { token: tokenIndex[i], expert, column: index % cols };
  };
}
