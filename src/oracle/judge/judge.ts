/** What every stage is judged with, and how its verdict is put together. */
import { numColumns } from '../../selection/routers.js';
import type { Approximate } from '../bounds/approximate.js';
import type { Arithmetic, FloatFormat } from '../bounds/arithmetic.js';
import { expertRounding, LONG_SUM, type Rounding, routerRounding } from '../bounds/rounding.js';
import type { Finding, LayerCall, StageName, StageVerdicts } from '../types.js';
import { type Difference, differenceOf, type PlaceOf } from './difference.js';
import type { Observation, Observed } from './observe.js';

export interface Judge {
  readonly call: LayerCall;
  readonly arithmetic: Arithmetic;
  readonly observation: Observation;
  readonly router: Rounding;
  readonly experts: Rounding;
  /** The roundings by which a result is all but surely judged; absent where no sum is long enough for a difference. */
  readonly likely: { readonly router: Rounding; readonly experts: Rounding } | undefined;
  readonly findings: Finding[];
}

export function judgeOf(call: LayerCall, arithmetic: Arithmetic, observation: Observation): Judge {
  const { up } = call.weights;
  const isLong = Math.max(up[0].rows, up[0].cols, numColumns(call.config)) > LONG_SUM;
  const likely = {
    router: routerRounding(arithmetic, 'in all likelihood'),
    experts: expertRounding(arithmetic, 'in all likelihood'),
  };
  return {
    call,
    arithmetic,
    observation,
    router: routerRounding(arithmetic),
    experts: expertRounding(arithmetic),
    likely: isLong ? likely : undefined,
    findings: [...observation.findings],
  };
}

/** An output that is there, of the right shape and finite, so that the later stages can be judged by it. */
export function usable({ observation }: Judge, name: string): Observed | undefined {
  const observed = observation.tensors.get(name);
  return observed?.usable ? observed : undefined;
}

/** The verdict on one float output; `not judged` where it is not there. */
export function judgeFloats(
  judge: Judge,
  stage: StageName,
  name: string,
  expected: () => Approximate,
  format: FloatFormat,
  placeOf: PlaceOf,
  likely?: () => Approximate,
): StageVerdicts {
  const misshapen = judge.observation.misshapen.get(name);
  if (misshapen !== undefined) return verdict(stage, 'disagree', `${name}: ${misshapen}`);
  const observed = judge.observation.tensors.get(name);
  if (!observed) return notJudged(stage, `no ${name}`);
  const difference = differenceOf(observed, expected(), format, placeOf);
  const judged = fromDifference(judge, stage, name, difference);
  if (!judge.likely || !likely || difference.ratio === 0) return judged;
  const tighter = likely();
  return warned(judged, difference, differenceOf(observed, tighter, format, placeOf), tighter);
}

/** With the probabilistic bound: a warning where it is exceeded, and the deterministic one is not. */
function warned(
  judged: StageVerdicts,
  { worst, index }: Difference,
  again: Difference,
  { error }: Approximate,
): StageVerdicts {
  if (!worst || index === undefined) return judged;
  const place = { ...worst, likelyBound: error[index] };
  if (judged.verdict === 'disagree' || !again.worst || again.numWrong === 0) return { ...judged, worst: place };
  const { difference, bound } = again.worst;
  const warning = `${again.numWrong} of ${again.numValues} values are off by more than roundings of mean 0 explain: by ${difference}, explained ${bound}`;
  return { ...judged, worst: place, warning };
}

function fromDifference(judge: Judge, stage: StageName, name: string, difference: Difference): StageVerdicts {
  const { numWrong, numNonFinite, numUnbounded, numValues, worst } = difference;
  if (numNonFinite > 0) {
    const detail = `${name}: ${numNonFinite} of ${numValues} values are not finite`;
    judge.findings.push({ kind: 'non-finite', severity: 'fault', stage, detail });
  }
  const unbounded =
    numUnbounded > 0 ? `${numUnbounded} of ${numValues} values may overflow the format, and are not judged` : '';
  const notFinite = numNonFinite > 0 ? `, ${numNonFinite} of them not finite` : '';
  const wrong = `${numWrong} of ${numValues} values of ${name} are off by more than their bounds${notFinite}`;
  const detail = [numWrong > 0 ? wrong : '', unbounded].filter(Boolean).join('; ');
  return { stage, verdict: numWrong > 0 ? 'disagree' : 'agree', ...(worst && { worst }), numAmbiguous: 0, detail };
}

export function verdict(
  stage: StageName,
  of: StageVerdicts['verdict'],
  detail: string,
  numAmbiguous = 0,
): StageVerdicts {
  return { stage, verdict: of, numAmbiguous, detail };
}

export function notJudged(stage: StageName, reason: string): StageVerdicts {
  return verdict(stage, 'not judged', reason);
}

const SEVERITY = ['not judged', 'agree', 'admissible', 'disagree'];

/** Two verdicts on one stage as one: the worse of them, and what both say. */
export function worseOf(a: StageVerdicts, b: StageVerdicts): StageVerdicts {
  const [worse, other] = SEVERITY.indexOf(b.verdict) > SEVERITY.indexOf(a.verdict) ? [b, a] : [a, b];
  const closer = [worse, other].filter(({ worst }) => worst).sort((x, y) => ratioOf(y) - ratioOf(x))[0];
  const detail = worse.verdict === 'disagree' ? worse.detail : [worse.detail, other.detail].filter(Boolean).join('; ');
  const warning = [a.warning, b.warning].filter(Boolean).join('; ');
  return {
    ...worse,
    ...(worse.verdict !== 'disagree' && closer?.worst && { worst: closer.worst }),
    numAmbiguous: a.numAmbiguous + b.numAmbiguous,
    ...(warning !== '' && { warning }),
    detail,
  };
}

function ratioOf({ worst }: StageVerdicts): number {
  return worst ? worst.difference / worst.bound : 0;
}
