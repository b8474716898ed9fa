/** Run a layer case on a backend, and hold every output against what the case recorded. */
import { planOf } from '../../dispatch.js';
import { type LayerCase, type NamedTensor, type NamedTensors, outputTensors } from '../../layer-case/index.js';
import { forward } from '../../moe.js';
import { selectionOf } from '../../selection/selection.js';
import type { Backend, DispatchPlan, Routing, Trace } from '../../types.js';
import { type Arithmetic, arithmeticNamed } from '../bounds/arithmetic.js';
import { type Bounds, errorBounds } from '../bounds/bounds.js';
import { arithmeticOfBackend } from '../search/implementation.js';
import type { Conformance, StageVerdict } from '../types.js';
import { conform } from './conform.js';
import { keptFlags } from './judge-dispatch.js';
import { stageOf } from './observe.js';

/** One output of a backend against the recorded one. */
export interface OutputReport {
  /** The output's name in a layer case: logits, probs, selected, kept, combine, y, load_balancing_loss, loss, grad.… */
  readonly stage: string;
  /** `admissible`: not the recorded decision, but both are right. */
  readonly verdict: Exclude<StageVerdict, 'not judged'>;
  /** Floats: |difference| where it is worst against what is allowed. Decisions: how many pairs differ. */
  readonly error: number;
  readonly allowed: number;
  /** The worst place, or why other decisions are admissible; empty where all is equal. */
  readonly detail: string;
}

export interface CaseResult {
  readonly trace: Trace;
  /** All the backend's own, whatever the verdict. */
  readonly outputs: NamedTensors;
  /** One for each output that was both computed and recorded; none where nothing was recorded. */
  readonly reports: readonly OutputReport[];
}

/**
 * Run one case. Decisions are judged first: where they differ, `conform` says whether both are right. The later stages
 * then run again on the recorded decisions, so that each answers for itself.
 *
 * Bounds  `errorBounds` of the backend's arithmetic, and of the arithmetic in which the case was recorded
 * @throws TypeError if gradients are wanted and the backend has no backward, or the case no `grad.y`
 */
export function runCase(
  backend: Backend,
  layerCase: LayerCase,
  withGradients = false,
  recordedIn: Arithmetic = arithmeticNamed('f64'),
): CaseResult {
  const own = run(backend, layerCase, withGradients);
  const { outputs, trace } = own;
  const { recorded } = layerCase;
  if (recorded.size === 0) return { ...own, reports: [] };

  const plan = planOfRecorded(layerCase, trace.routing, trace.plan);
  const isSame = isSameTensor(outputs, recorded, 'selected') && isSameTensor(outputs, recorded, 'kept');
  const dispatch: Backend['dispatch'] = routing => planOfRecorded(layerCase, routing, trace.plan);
  const judged = isSame ? outputs : run({ ...backend, dispatch }, layerCase, withGradients).outputs;
  const { gradY, ...call } = layerCase;
  const bounds = [arithmeticOfBackend(backend), recordedIn].map(arithmetic =>
    errorBounds(withGradients ? layerCase : call, keptFlags(plan), arithmetic),
  );
  const verdicts = isSame ? undefined : verdictsOnBoth(backend, outputs, layerCase, recordedIn);
  const reports = [...outputs.keys()].flatMap(name => {
    const expected = recorded.get(name);
    if (!expected) return [];
    const isDecision = name === 'selected' || name === 'kept';
    if (isDecision) return [compareDecisions(name, outputs.get(name)!, expected, verdicts)];
    const report = compareFloats(name, judged.get(name)!, expected, bounds);
    // which of equal experts the losses count as the first is told by nothing else
    const mayBeOpen = report.verdict === 'disagree' && stageOf(name) === 'loss';
    return mayBeOpen
      ? [ofOpenFirsts(report, verdictsOnBoth(backend, judged, layerCase, recordedIn, withGradients))]
      : [report];
  });
  return { ...own, reports };
}

function run(backend: Backend, { x, weights, config, inputs, gradY }: LayerCase, withGradients: boolean) {
  const trace = forward(backend, x, weights, config, inputs);
  if (!withGradients) return { trace, outputs: outputTensors(trace) };
  if (!backend.backward) throw new TypeError(`"backend" expected one with a backward, got ${backend.name}`);
  if (!gradY) throw new TypeError('"grad.y" expected the cotangent of y in the case, got none');
  return { trace, outputs: outputTensors(trace, backend.backward(trace, x, weights, config, gradY, inputs)) };
}

/** A plan of the recorded decisions, weighted by the given routing; what was not recorded is taken from `own`. */
function planOfRecorded({ recorded, config, inputs }: LayerCase, routing: Routing, own: DispatchPlan): DispatchPlan {
  const kept = recorded.get('kept')?.data;
  const selected = recorded.get('selected')?.data ?? kept;
  if (!selected) return planOf(own.selection, own.kept, own.capacity, routing, config);
  const { numTokens, numExperts } = own.selection;
  const experts = Array.from({ length: numExperts }, (_, e) => e);
  const chosen = (t: number) => experts.filter(e => selected[t * numExperts + e]);
  const selection = selectionOf(numTokens, numExperts, inputs.tokenMask, chosen);
  const flags: number[] = [];
  for (let t = 0; t < numTokens; t++) {
    for (let pair = selection.tokenOffsets[t]; pair < selection.tokenOffsets[t + 1]; pair++) {
      flags.push(kept ? kept[t * numExperts + selection.expertIndex[pair]] : 1);
    }
  }
  return planOf(selection, Uint8Array.from(flags), own.capacity, routing, config);
}

function isSameTensor(outputs: NamedTensors, recorded: NamedTensors, name: string): boolean {
  const [ours, theirs] = [outputs.get(name), recorded.get(name)];
  return (
    !ours ||
    !theirs ||
    (ours.data.length === theirs.data.length && ours.data.every((v: number, i: number) => v === theirs.data[i]))
  );
}

/** The backend's outputs judged by themselves, and the recorded ones. */
function verdictsOnBoth(
  backend: Backend,
  outputs: NamedTensors,
  layerCase: LayerCase,
  recordedIn: Arithmetic,
  withGradients = false,
): readonly [Conformance, Conformance] {
  const { gradY, ...forwardCall } = layerCase;
  const call = withGradients ? layerCase : forwardCall;
  return [conform(outputs, call, arithmeticOfBackend(backend)), conform(layerCase.recorded, call, recordedIn)];
}

function compareDecisions(
  stage: 'selected' | 'kept',
  own: NamedTensor,
  expected: NamedTensor,
  verdicts: readonly [Conformance, Conformance] | undefined,
): OutputReport {
  const misshapen = shapeFault(stage, own, expected);
  if (misshapen) return misshapen;
  const error = own.data.filter((flag: number, i: number) => flag !== expected.data[i]).length;
  if (error === 0 || !verdicts) return { stage, verdict: 'agree', error: 0, allowed: 0, detail: '' };
  const [ours, theirs] = verdicts.map(({ stages }) => stages.find(judged => judged.stage === stageOf(stage))!);
  for (const [whose, judged] of [
    ['', ours],
    ['of the recorded ones: ', theirs],
  ] as const) {
    if (judged.verdict === 'disagree')
      return { stage, verdict: 'disagree', error, allowed: 0, detail: `${whose}${judged.detail}` };
  }
  const why = ours.detail || theirs.detail || 'right for its own probabilities';
  return { stage, verdict: 'admissible', error, allowed: error, detail: why };
}

/** Of a loss that differs: admissible where tokens have several experts that may be first, and both losses count some of them. */
function ofOpenFirsts(report: OutputReport, verdicts: readonly [Conformance, Conformance]): OutputReport {
  const [ours, theirs] = verdicts.map(({ stages }) => stages.find(({ stage }) => stage === 'loss')!);
  const isOpen = ours.numAmbiguous > 0 || theirs.numAmbiguous > 0;
  if (!isOpen || ours.verdict === 'disagree' || theirs.verdict === 'disagree') return report;
  return {
    ...report,
    verdict: 'admissible',
    allowed: report.error,
    detail: 'another of the experts that may be first is counted',
  };
}

function shapeFault(stage: string, own: NamedTensor, expected: NamedTensor): OutputReport | undefined {
  if (own.shape.join() === expected.shape.join()) return undefined;
  const detail = `recorded shape [${expected.shape.join(', ')}], got [${own.shape.join(', ')}]`;
  return { stage, verdict: 'disagree', error: Number.POSITIVE_INFINITY, allowed: 0, detail };
}

function compareFloats(
  stage: string,
  tensor: NamedTensor,
  expected: NamedTensor,
  bounds: readonly Bounds[],
): OutputReport {
  const misshapen = shapeFault(stage, tensor, expected);
  if (misshapen) return misshapen;
  const errors = bounds.map(bound => bound.get(stage)!.error);
  const allowedAt = (index: number) => errors.reduce((sum, error) => sum + (error[index] ?? 0), 0); // no element, no error
  let worst = { index: 0, error: 0, allowed: allowedAt(0), ratio: 0 };
  for (let index = 0; index < tensor.data.length; index++) {
    const error = Math.abs(tensor.data[index] - expected.data[index]);
    if (error === 0) continue;
    const allowed = allowedAt(index);
    const ratio = Number.isNaN(error) ? Number.POSITIVE_INFINITY : error / allowed;
    if (ratio > worst.ratio) worst = { index, error, allowed, ratio };
  }
  const { index, error, allowed, ratio } = worst;
  const place = placeOf(index, tensor.shape).join(', ');
  const detail = ratio === 0 ? '' : `[${place}]: recorded ${expected.data[index]}, got ${tensor.data[index]}`;
  return { stage, verdict: ratio > 1 ? 'disagree' : 'agree', error, allowed, detail };
}

/** A flat index as one index for each dimension. */
function placeOf(index: number, shape: readonly number[]): number[] {
  const place: number[] = [];
  for (const size of [...shape].reverse()) {
    place.unshift(index % size);
    index = Math.floor(index / size);
  }
  return place;
}
