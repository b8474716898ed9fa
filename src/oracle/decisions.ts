/** Decisions against the recorded ones: equal, or another answer that the semantics allow. */
import { queues } from '../capacity.js';
import { planOf } from '../dispatch.js';
import { type LayerCase, type NamedTensor, outputTensors } from '../layer-case/index.js';
import { dot, sum } from '../matrix.js';
import { reference } from '../moe.js';
import { selectionOf } from '../selection/selection.js';
import { selectExceed, selectThreshold, selectWithin } from '../selection/threshold.js';
import type { Backend, DispatchPlan, Matrix, Routing, Selection, Trace } from '../types.js';
import type { StageReport } from './report.js';

/** A plan of the recorded decisions, weighted by the given routing; what was not recorded is taken from `own`. */
export function planOfRecorded(
  { recorded, config, inputs }: LayerCase,
  routing: Routing,
  own: DispatchPlan,
): DispatchPlan {
  const kept = recorded.get('kept')?.data;
  const selected = recorded.get('selected')?.data ?? kept;
  if (!selected) return planOf(own.selection, own.kept, own.capacity, routing, config);
  const { numTokens, numExperts } = own.selection;
  const experts = Array.from({ length: numExperts }, (_, e) => e);
  const selection = selectionOf(numTokens, numExperts, inputs.tokenMask, t =>
    experts.filter(e => selected[t * numExperts + e]),
  );
  const flags = pairs(selection).map(({ token, expert }) => (kept ? kept[token * numExperts + expert] : 1));
  return planOf(selection, Uint8Array.from(flags), own.capacity, routing, config);
}

export function compareSelected(backend: Backend, trace: Trace, layerCase: LayerCase): StageReport | undefined {
  return compareDecisions('selected', trace, layerCase, () => {
    const { config, recorded } = layerCase;
    if (config.router === 'base_train')
      return otherAssignment(trace.routing.logits, trace.plan, recorded.get('selected')!);
    return followsFromOwnProbs('selected', backend, trace, layerCase);
  });
}

export function compareKept(backend: Backend, trace: Trace, layerCase: LayerCase): StageReport | undefined {
  return compareDecisions('kept', trace, layerCase, () => {
    const kept = layerCase.recorded.get('kept')!;
    if (layerCase.config.router === 'base_train')
      return 'another balanced assignment; the recorder may also cut it at C';
    if (layerCase.dropOrderOpen) return otherDropOrder(trace, kept);
    return followsFromOwnProbs('kept', backend, trace, layerCase);
  });
}

/** Agree, or admissible if `reason` finds one. */
function compareDecisions(
  stage: 'selected' | 'kept',
  trace: Trace,
  layerCase: LayerCase,
  reason: () => string | undefined,
): StageReport | undefined {
  const expected = layerCase.recorded.get(stage);
  if (!expected) return undefined;
  const own = outputTensors(trace).get(stage)!;
  if (own.shape.join() !== expected.shape.join()) {
    const detail = `recorded shape [${expected.shape.join(', ')}], got [${own.shape.join(', ')}]`;
    return { stage, verdict: 'disagree', error: Math.max(own.data.length, expected.data.length), allowed: 0, detail };
  }
  const [numTokens, numExperts] = own.shape;
  const differing = Array.from({ length: numTokens }, (_, t) => t).filter(
    t => expertsOf(own, t).join() !== expertsOf(expected, t).join(),
  );
  const numPairs = own.data.filter((flag: number, i: number) => flag !== expected.data[i]).length;
  if (numPairs === 0) return { stage, verdict: 'agree', error: 0, allowed: 0, detail: '' };
  const admissible = reason();
  if (admissible) return { stage, verdict: 'admissible', error: numPairs, allowed: numPairs, detail: admissible };
  const t = differing[0];
  const [theirs, ours] = [expertsOf(expected, t), expertsOf(own, t)].map(list => `{${list.join(', ')}}`);
  const relative = stage === 'selected' && layerCase.config.router === 'threshold' ? relativeOf(trace, layerCase) : '';
  const detail = `${differing.length} of ${numTokens} tokens; token ${t}: recorded experts ${theirs}, got ${ours}${relative}`;
  return { stage, verdict: 'disagree', error: numPairs, allowed: 0, detail };

  function expertsOf({ data }: NamedTensor, token: number): number[] {
    return Array.from(data.subarray(token * numExperts, (token + 1) * numExperts)).flatMap((flag, e) =>
      flag ? [e] : [],
    );
  }
}

/** A float32 backend may rightly decide otherwise, if it does what the reference does with that backend's own probabilities. */
function followsFromOwnProbs(
  stage: 'selected' | 'kept',
  backend: Backend,
  trace: Trace,
  { config, inputs }: LayerCase,
): string | undefined {
  if (backend.precision === 'f64') return undefined;
  const { plan, routing } = trace;
  const expected = reference.dispatch(routing, inputs, config);
  const same =
    same32(plan.selection.expertIndex, expected.selection.expertIndex) &&
    same32(plan.selection.tokenOffsets, expected.selection.tokenOffsets) &&
    (stage === 'selected' || same32(plan.kept, expected.kept));
  return same ? 'right for its own probabilities' : undefined;
}

function same32(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  return a.length === b.length && Array.prototype.every.call(a, (value, i) => value === b[i]);
}

/** BASE training: any balanced assignment of the largest total score will do; an approximate one may score less. Rule D9. */
function otherAssignment(logits: Matrix, own: DispatchPlan, recorded: NamedTensor): string | undefined {
  const { rows: numTokens, cols: numExperts } = logits;
  const ownFlags = new Uint8Array(numTokens * numExperts);
  for (const { token, expert } of pairs(own.selection)) ownFlags[token * numExperts + expert] = 1;
  const counts = Array.from({ length: numExperts }, (_, e) =>
    sum(recorded.data.filter((_, i: number) => i % numExperts === e)),
  );
  const [ours, theirs] = [dot(logits.data, ownFlags), dot(logits.data, recorded.data)];
  const magnitude = sum(logits.data.map(Math.abs));
  const isBalanced = counts.every(count => count === counts[0]);
  if (!isBalanced || theirs > ours + magnitude * 2 ** -50) return undefined;
  return `another balanced assignment: total score ${ours}, recorded ${theirs}`;
}

/** Where the order within a rank is open: the recorded experts keep as many, and nobody of better rank is dropped. Rule D12. */
function otherDropOrder({ plan, routing }: Trace, recorded: NamedTensor): string | undefined {
  const { numExperts } = plan.selection;
  const isKept = ({ token }: { token: number }, e: number) => recorded.data[token * numExperts + e] === 1;
  const admissible = queues(plan.selection, routing.probs).every((queue, e) => {
    const [theirs, dropped] = [queue.filter(c => isKept(c, e)), queue.filter(c => !isKept(c, e))];
    const ours = queue.filter(({ pair }) => plan.kept[pair]);
    const worstKept = Math.max(...theirs.map(({ rank }) => rank));
    return theirs.length === ours.length && dropped.every(({ rank }) => rank >= worstKept);
  });
  return admissible && sum(recorded.data) === plan.tokenIndex.length
    ? 'another order within a rank, which is open'
    : undefined;
}

/** Whether the selection is that of a named relative. Rule D4. */
function relativeOf({ routing, plan }: Trace, { config, inputs }: LayerCase): string {
  const relatives = [
    ['XMoE', selectThreshold],
    ['the "exceed" relative (Dynamic MoE)', selectExceed],
    ['the "within" relative (top-p)', selectWithin],
  ] as const;
  const match = relatives.find(([, select]) =>
    same32(select(routing.probs, config.threshold!, inputs.tokenMask).expertIndex, plan.selection.expertIndex),
  );
  return match ? `; on its own probabilities it selects as ${match[0]} does` : '';
}

function pairs({ numTokens, tokenOffsets, expertIndex }: Selection): { token: number; expert: number }[] {
  return Array.from({ length: numTokens }, (_, token) =>
    Array.from(expertIndex.subarray(tokenOffsets[token], tokenOffsets[token + 1]), expert => ({ token, expert })),
  ).flat();
}
