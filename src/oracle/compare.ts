/** Run a layer case on a backend, and hold every stage against what the case recorded. */
import { type LayerCase, type NamedTensor, type NamedTensors, outputTensors } from '../layer-case/index.js';
import { largestMagnitude } from '../matrix.js';
import { forward, reference } from '../moe.js';
import type { Backend, Trace } from '../types.js';
import { errorBounds, U32 } from './bounds.js';
import { compareKept, compareSelected, planOfRecorded } from './decisions.js';
import type { StageReport } from './report.js';

export interface CaseResult {
  readonly trace: Trace;
  /** All the backend's own, whatever the verdict. */
  readonly outputs: NamedTensors;
  /** One for each output that was both computed and recorded; none where nothing was recorded. */
  readonly reports: readonly StageReport[];
}

/**
 * Run one case. Decisions are judged first; where they differ from the recorded ones, the later stages run again on the
 * recorded decisions, so that each stage answers for itself.
 *
 * Bounds  f64 backends: 1e-12 of the largest magnitude in the recorded tensor (all zero: exactly zero); f32: `errorBounds`
 * @throws TypeError if gradients are wanted and the backend has no backward, or the case no `grad.y`
 */
export function runCase(backend: Backend, layerCase: LayerCase, withGradients = false): CaseResult {
  const own = run(backend, layerCase, withGradients);
  const outputs = own.outputs;
  const { recorded } = layerCase;
  if (recorded.size === 0) return { ...own, reports: [] };

  const decisions = [compareSelected(backend, own.trace, layerCase), compareKept(backend, own.trace, layerCase)].filter(
    r => r !== undefined,
  );
  const sameDecisions = decisions.every(({ error }) => error === 0);
  const dispatch: Backend['dispatch'] = routing => planOfRecorded(layerCase, routing, own.trace.plan);
  const judged = sameDecisions ? outputs : run({ ...backend, dispatch }, layerCase, withGradients).outputs;

  const allowed = backend.precision === 'f64' ? relativeTolerance(recorded) : boundsOf(layerCase, dispatch);
  const floats = [...judged].flatMap(([stage, tensor]) => {
    const expected = recorded.get(stage);
    return expected && !isDecision(stage) ? [compareFloats(stage, tensor, expected, allowed)] : [];
  });
  const order = [...outputs.keys()];
  const reports = [...decisions, ...floats].sort((a, b) => order.indexOf(a.stage) - order.indexOf(b.stage));
  return { ...own, reports };
}

function run(backend: Backend, { x, weights, config, inputs, gradY }: LayerCase, withGradients: boolean) {
  const trace = forward(backend, x, weights, config, inputs);
  if (!withGradients) return { trace, outputs: outputTensors(trace) };
  if (!backend.backward) throw new TypeError(`"backend" expected one with a backward, got ${backend.name}`);
  if (!gradY) throw new TypeError('"grad.y" expected the cotangent of y in the case, got none');
  return { trace, outputs: outputTensors(trace, backend.backward(trace, x, weights, config, gradY, inputs)) };
}

function isDecision(stage: string): boolean {
  return stage === 'selected' || stage === 'kept';
}

type Allowed = (stage: string, index: number) => number;

function relativeTolerance(recorded: NamedTensors): Allowed {
  const largest = new Map(Array.from(recorded, ([stage, { data }]) => [stage, largestMagnitude(data)]));
  return stage => 1e-12 * largest.get(stage)!;
}

/** Bounds for the recorded decisions, on which every backend is judged. */
function boundsOf(layerCase: LayerCase, dispatch: Backend['dispatch']): Allowed {
  const { x, weights, config, inputs } = layerCase;
  const trace = forward({ ...reference, dispatch }, x, weights, config, inputs);
  const bounds = errorBounds(trace, x, weights, config, U32);
  return (stage, index) => bounds.get(stage)![index] ?? 0; // no element, no error
}

function compareFloats(stage: string, tensor: NamedTensor, expected: NamedTensor, allowed: Allowed): StageReport {
  if (tensor.shape.join() !== expected.shape.join()) {
    const detail = `recorded shape [${expected.shape.join(', ')}], got [${tensor.shape.join(', ')}]`;
    return { stage, verdict: 'disagree', error: Number.POSITIVE_INFINITY, allowed: 0, detail };
  }
  let worst = { index: 0, error: 0, allowed: allowed(stage, 0), ratio: 0 };
  for (let index = 0; index < tensor.data.length; index++) {
    const error = Math.abs(tensor.data[index] - expected.data[index]);
    if (error === 0) continue;
    const bound = allowed(stage, index);
    const ratio = Number.isNaN(error) ? Number.POSITIVE_INFINITY : error / bound;
    if (ratio > worst.ratio) worst = { index, error, allowed: bound, ratio };
  }
  const { index, error, ratio } = worst;
  const place = placeOf(index, tensor.shape).join(', ');
  return {
    stage,
    verdict: ratio > 1 ? 'disagree' : 'agree',
    error,
    allowed: worst.allowed,
    detail: ratio === 0 ? '' : `[${place}]: recorded ${expected.data[index]}, got ${tensor.data[index]}`,
  };
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
