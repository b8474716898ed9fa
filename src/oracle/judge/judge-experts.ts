/** The experts on the implementation's own kept pairs; y on its own experts' rows and weights. */
import { numColumns } from '../../selection/routers.js';
import { isReal, numRealTokens } from '../../selection/selection.js';
import type { DispatchPlan, Routing } from '../../types.js';
import { type Approximate, exactly } from '../bounds/approximate.js';
import { combineApprox, weightsApprox } from '../bounds/combine-approx.js';
import { expertsApprox, type ForwardApprox, planOfKept } from '../bounds/forward-approx.js';
import type { LayerCall, StageVerdicts } from '../types.js';
import { assignmentInY } from './assignment.js';
import { type Compared, IN, OUT } from './choices.js';
import { byToken, type PlaceOf } from './difference.js';
import { explainY } from './explain.js';
import { type Judge, judgeFloats, notJudged, usable, verdict, worseOf } from './judge.js';
import type { JudgedDispatch } from './judge-dispatch.js';
import type { OwnForward } from './judge-gradients.js';
import type { JudgedRouting } from './judge-routing.js';
import { expertsIn, type JudgedSelection, judgeAssignment } from './judge-selection.js';
import { asMatrix } from './observe.js';
import { capacitiesOf } from './queues.js';
import { relativeOf } from './relatives.js';
import { settle } from './settle.js';

export interface JudgedExperts {
  readonly verdicts: readonly StageVerdicts[];
  /** Where y shows that a decision which was not told was wrong: selection, or dispatch. */
  readonly decision?: StageVerdicts;
  /** What the gradients are judged on; none where it is not known who was kept. */
  readonly forward: OwnForward | undefined;
}

export function judgeExperts(
  judge: Judge,
  { compared }: JudgedRouting,
  selection: JudgedSelection,
  dispatch: JudgedDispatch,
): JudgedExperts {
  const { call, experts: rounding, router, arithmetic, observation } = judge;
  const { x, weights, config, inputs } = call;
  const numExperts = numColumns(config);
  const routing: Routing = { logits: compared.logits.value, probs: compared.probs.value };

  // of all pairs that may be kept, to be narrowed down by y
  const maybe = dispatch.kept.map(status => (status === OUT ? OUT : IN));
  const widest = expertsApprox(x, planOfKept(maybe, x.rows, routing, config), weights, config, rounding);
  const widestWeights = weightsApprox(maybe, compared, config, router, rounding);
  const numReal = numRealTokens(x.rows, inputs.tokenMask);
  const neverDrops = capacitiesOf(x.rows, inputs, config)?.every(capacity => capacity >= numReal) !== false;
  const { kept, open, isSure, impossible } = settle(
    judge,
    dispatch.kept,
    dispatch.expected,
    widest,
    widestWeights,
    usable(judge, 'y')?.data,
    (t, flags) =>
      !neverDrops || !isReal(inputs.tokenMask, t) || selection.mayChoose(t, expertsOf(flags, t, numExperts)),
  );
  const isUntold = selection.verdict.verdict === 'not judged';
  const decision = !isUntold
    ? undefined
    : impossible === undefined
      ? wrongAssignment(judge, selection, compared, widest, widestWeights)
      : toldSelection(call, routing, kept, impossible, selection.verdict);
  const isSettled = kept.every((flag, i) => flag === maybe[i]);
  const plan = isSettled ? widest.plan : planOfKept(kept, x.rows, routing, config);
  const forward = isSettled ? widest : expertsApprox(x, plan, weights, config, rounding);
  const expectedWeights = isSettled ? widestWeights : weightsApprox(kept, compared, config, router, rounding);

  let likely: Approximate | undefined;
  const likelyOut = () => {
    likely ??= expertsApprox(x, plan, weights, config, judge.likely!.experts).out;
    return likely;
  };
  const misplaced = misplacedRows(judge, plan.tokenIndex.length, isSure);
  const ownOut = misplaced ? undefined : usable(judge, 'expert_out');
  const onOut =
    misplaced ??
    judgeFloats(
      judge,
      'experts',
      'expert_out',
      () => forward.out,
      arithmetic.store,
      rowPlaces(plan, x.cols),
      likelyOut,
    );
  const out = ownOut ? exactly(asMatrix(ownOut)) : forward.out;

  const wherever = { value: expectedWeights.value, error: unbounded(expectedWeights.error, open, numExperts) };
  const onWeights = judgeFloats(
    judge,
    'combine',
    'combine',
    () => wherever,
    arithmetic.store,
    byToken(numExperts, 'expert'),
  );
  const ownWeights = usable(judge, 'combine');
  const used = ownWeights ? exactly(asMatrix(ownWeights)) : expectedWeights;
  const sum = combineApprox(out, used, plan, kept, rounding);
  const expectedY = { value: sum.value, error: unbounded(sum.error, open, x.cols) };
  const likelyY = ownOut ? undefined : () => combineApprox(likelyOut(), used, plan, kept, judge.likely!.experts);
  const onY = withOpen(
    judgeFloats(judge, 'combine', 'y', () => expectedY, arithmetic.store, byToken(x.cols, 'column'), likelyY),
    open,
  );

  const onCombine =
    onWeights.verdict === 'not judged' && onY.verdict === 'not judged'
      ? notJudged('combine', 'no combine, no y')
      : worseOf(onWeights, onY);
  const own = isSure ? { plan, experts: forward, weights: expectedWeights } : undefined;
  const y = observation.tensors.get('y');
  if (observation.tensors.has('expert_out') || misplaced || !y) {
    return { verdicts: [onOut, onCombine], ...(decision && { decision }), forward: own };
  }
  const isRight = onY.verdict === 'agree';
  if (isRight) {
    const onExperts = verdict('experts', 'agree', 'judged by y');
    return { verdicts: [onExperts, onCombine], ...(decision && { decision }), forward: own };
  }
  const why = explainY(judge, asMatrix(y), {
    y: expectedY,
    forward,
    kept,
    chosen: selection.chosen,
    weights: used,
    compared,
  });
  judge.findings.forEach((finding, i) => {
    if (finding.stage === 'combine' && onWeights.verdict !== 'disagree')
      judge.findings[i] = { ...finding, stage: why.stage };
  });
  const detail = [onY.detail, why.detail].filter(Boolean).join('; ');
  const explained = { ...onY, stage: why.stage, detail, ...(why.isGuess && { guess: why.detail }) };
  const onlyWeights =
    onWeights.verdict === 'not judged' ? notJudged('combine', `y is wrong by the ${why.stage}`) : onWeights;
  switch (why.stage) {
    case 'combine':
      return { verdicts: [onOut, worseOf(explained, onWeights)], forward: own };
    case 'experts':
      return { verdicts: [explained, onlyWeights], forward: own };
    default:
      return { verdicts: [onOut, onlyWeights], decision: explained, forward: undefined };
  }
}

/** An assignment of BASE training that only y tells, and that is not the best. */
function wrongAssignment(
  judge: Judge,
  { expected }: JudgedSelection,
  compared: Compared,
  forward: ForwardApprox,
  weights: Approximate,
): StageVerdicts | undefined {
  const y = usable(judge, 'y');
  if (!y || judge.call.config.router !== 'base_train') return undefined;
  const flags = assignmentInY(y.data, forward, weights, judge.experts);
  const judged = flags && judgeAssignment(judge, flags, expected, compared);
  return judged?.verdict === 'disagree' ? { ...judged, detail: `by its y: ${judged.detail}` } : undefined;
}

/** A selection that only the combine weights tell, and that is wrong. */
function toldSelection(
  call: LayerCall,
  routing: Routing,
  kept: Uint8Array,
  token: number,
  { numAmbiguous }: StageVerdicts,
): StageVerdicts {
  const experts = expertsOf(kept, token, numColumns(call.config));
  const relative = relativeOf(call, routing, kept);
  const detail = `by its combine weights token ${token} chooses {${experts.join(', ')}}${relative ? `; ${relative}` : ''}`;
  return verdict('selection', 'disagree', detail, numAmbiguous);
}

function expertsOf(flags: Uint8Array, token: number, numExperts: number): number[] {
  return expertsIn(flags.subarray(token * numExperts, (token + 1) * numExperts));
}

/** No bound where several answers are right. */
function unbounded(error: Float64Array, open: ReadonlySet<number>, cols: number): Float64Array {
  if (open.size === 0) return error;
  const wide = error.slice();
  for (const t of open) wide.fill(Number.POSITIVE_INFINITY, t * cols, (t + 1) * cols);
  return wide;
}

function withOpen(judged: StageVerdicts, open: ReadonlySet<number>): StageVerdicts {
  if (open.size === 0 || judged.verdict === 'not judged') return judged;
  const unjudged = `${open.size} tokens are not judged: several decisions are right for them, and none is told`;
  const detail = judged.verdict === 'disagree' ? `${judged.detail}; ${unjudged}` : unjudged;
  return { ...judged, numAmbiguous: open.size, detail };
}

/** `expert_out` must have a row for each kept pair. */
function misplacedRows(
  { call, observation, findings }: Judge,
  numRows: number,
  isSure: boolean,
): StageVerdicts | undefined {
  const observed = observation.tensors.get('expert_out');
  if (!observed) return undefined;
  if (!isSure) return notJudged('experts', 'no kept to say which rows expert_out has');
  if (observed.shape[0] === numRows) return undefined;
  const ofSkip = call.config.skipExpert ? ' (of 0 for the skip expert’s)' : '';
  const detail = `expert_out: expected ${numRows} rows, one for each kept pair${ofSkip}, got ${observed.shape[0]}`;
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
