/** Selection on the implementation's own probabilities: equal, admissible by margin, or wrong. */
import { dot } from '../../matrix.js';
import { numColumns, routers } from '../../selection/routers.js';
import { isReal } from '../../selection/selection.js';
import type { Routing, Selection } from '../../types.js';
import type { StageVerdicts } from '../types.js';
import { type Choice, type Compared, choiceOf, EITHER, IN, OUT } from './choices.js';
import { type Judge, notJudged, verdict } from './judge.js';
import type { Observed } from './observe.js';
import { relativeOf } from './relatives.js';
import { expertTies } from './ties.js';

export interface JudgedSelection {
  readonly verdict: StageVerdicts;
  /** What the later stages are judged on: the implementation's own choice, or what it may be. OUT, IN or EITHER: [T, E] */
  readonly chosen: Uint8Array;
  /** The reference's, on the same numbers: 1 = selected. [T, E] */
  readonly expected: Uint8Array;
  /** Whether a token may choose these experts, each of which it may choose. */
  readonly mayChoose: (token: number, experts: readonly number[]) => boolean;
}

export function judgeSelection(judge: Judge, compared: Compared): JudgedSelection {
  const { call, router } = judge;
  const { config, inputs } = call;
  const [numTokens, numExperts] = [call.x.rows, numColumns(config)];
  const routing: Routing = { logits: compared.logits.value, probs: compared.probs.value };
  const expected = flagsOf(routers[config.router].select(routing, inputs, config));
  const choices = Array.from({ length: config.router === 'base_train' ? 0 : numTokens }, (_, t) =>
    choiceOf(t, numExperts, compared, inputs, config, router),
  );
  // an assignment is of all tokens together: of one token alone, any expert may be its own
  const anyOfReal = () => expected.map((_, i) => (isReal(inputs.tokenMask, Math.floor(i / numExperts)) ? EITHER : OUT));
  const possible = config.router === 'base_train' ? anyOfReal() : statusOf(choices, numTokens * numExperts);
  const numAmbiguous = choices.filter(({ status }) => status.includes(EITHER)).length;

  const mayChoose = (t: number, experts: readonly number[]) =>
    config.router === 'base_train' ? experts.length === 1 : choices[t].fault(experts) === undefined;
  const misshapen = judge.observation.misshapen.get('selected');
  const own = misshapen ? undefined : (ownFlags(judge, 'selected') ?? keptInstead(judge));
  if (!own) {
    const judged = misshapen
      ? verdict('selection', 'disagree', `selected: ${misshapen}`, numAmbiguous)
      : { ...notJudged('selection', 'no selected'), numAmbiguous };
    return { verdict: judged, chosen: possible, expected, mayChoose };
  }
  const faults = faultsOfFlags(judge, 'selected');
  const { weight } = routers[config.router];
  const values = weight === 'sigmoid' ? compared.logits : compared.probs;
  if (weight !== 'one' && choices.length > 0 && config.router !== 'topk')
    judge.findings.push(...expertTies(own, possible, values));
  const judged = faults
    ? verdict('selection', 'disagree', faults, numAmbiguous)
    : config.router === 'base_train'
      ? judgeAssignment(judge, own, expected, compared)
      : judgeChoices(judge, own, expected, choices, routing, numAmbiguous);
  return { verdict: judged, chosen: own, expected, mayChoose };
}

/** 1 where selected. */
export function flagsOf({ numTokens, numExperts, tokenOffsets, expertIndex }: Selection): Uint8Array {
  const flags = new Uint8Array(numTokens * numExperts);
  for (let t = 0; t < numTokens; t++) {
    for (let pair = tokenOffsets[t]; pair < tokenOffsets[t + 1]; pair++) flags[t * numExperts + expertIndex[pair]] = 1;
  }
  return flags;
}

function statusOf(choices: readonly Choice[], size: number): Uint8Array {
  const status = new Uint8Array(size);
  choices.forEach((choice, t) => {
    status.set(choice.status, t * choice.status.length);
  });
  return status;
}

/** Where nothing is dropped, kept is selected. */
function keptInstead(judge: Judge): Uint8Array | undefined {
  const { config } = judge.call;
  const neverDrops = routers[config.router].dropOrder === 'none' || config.capacityFactor === null;
  return neverDrops ? ownFlags(judge, 'kept') : undefined;
}

/** Decisions as 0 and 1: anything but 0 counts as yes. */
export function ownFlags({ observation }: Judge, name: 'selected' | 'kept'): Uint8Array | undefined {
  const observed = observation.tensors.get(name);
  return observed && Uint8Array.from(observed.data, flag => (flag !== 0 ? 1 : 0));
}

/** What is wrong with flags that are neither 0 nor 1; each kind is a finding. */
export function faultsOfFlags(judge: Judge, name: 'selected' | 'kept'): string | undefined {
  const observed: Observed | undefined = judge.observation.tensors.get(name);
  const index = observed ? observed.data.findIndex((flag: number) => flag !== 0 && flag !== 1) : -1;
  if (!observed || index < 0) return undefined;
  const value = observed.data[index];
  const kind =
    Number.isInteger(value) && value > 1 ? 'duplicate expert' : Number.isFinite(value) ? 'out of range' : 'non-finite';
  const numExperts = observed.shape[1];
  const place = `token ${Math.floor(index / numExperts)}, expert ${index % numExperts}`;
  const detail = `${name} expected 0 or 1, got ${value} at ${place}`;
  judge.findings.push({ kind, severity: 'fault', stage: name === 'kept' ? 'dispatch' : 'selection', detail });
  return detail;
}

function judgeChoices(
  judge: Judge,
  own: Uint8Array,
  expected: Uint8Array,
  choices: readonly Choice[],
  routing: Routing,
  numAmbiguous: number,
): StageVerdicts {
  const numExperts = numColumns(judge.call.config);
  const wrong: { token: number; why: string }[] = [];
  let numOther = 0;
  choices.forEach(({ status, fault }, t) => {
    const [ours, theirs] = [own, expected].map(flags => flags.subarray(t * numExperts, (t + 1) * numExperts));
    if (ours.every((flag, e) => flag === theirs[e])) return;
    numOther++;
    const impossible = ours.findIndex((flag, e) => status[e] !== EITHER && flag !== (status[e] === IN ? 1 : 0));
    const why = isReal(judge.call.inputs.tokenMask, t) ? fault(expertsIn(ours)) : undefined;
    if (impossible >= 0 || why !== undefined) wrong.push({ token: t, why: why ?? '' });
  });
  if (numOther === 0) return verdict('selection', 'agree', '', numAmbiguous);
  if (wrong.length === 0) {
    const detail = `${numOther} of ${choices.length} tokens choose otherwise, by no more than rounding or an open order of ties`;
    return verdict('selection', 'admissible', detail, numAmbiguous);
  }
  const { token, why } = wrong[0];
  const [ours, theirs] = [own, expected].map(flags =>
    expertsIn(flags.subarray(token * numExperts, (token + 1) * numExperts)),
  );
  const relative = relativeOf(judge.call, routing, own);
  const detail = [
    `${wrong.length} of ${choices.length} tokens`,
    `token ${token}: expected experts {${theirs.join(', ')}}, got {${ours.join(', ')}}${why ? ` (${why})` : ''}`,
    ...(relative ? [relative] : []),
  ].join('; ');
  return verdict('selection', 'disagree', detail, numAmbiguous);
}

/** BASE training: any assignment of as many tokens to each expert, of the largest total score to within rounding. Rule D9. */
export function judgeAssignment(
  judge: Judge,
  own: Uint8Array,
  expected: Uint8Array,
  { logits }: Compared,
): StageVerdicts {
  const numExperts = numColumns(judge.call.config);
  const numTokens = judge.call.x.rows;
  if (own.every((flag, i) => flag === expected[i])) return verdict('selection', 'agree', '');
  for (let t = 0; t < numTokens; t++) {
    const count = expertsIn(own.subarray(t * numExperts, (t + 1) * numExperts)).length;
    const wanted = isReal(judge.call.inputs.tokenMask, t) ? 1 : 0;
    if (count !== wanted)
      return verdict('selection', 'disagree', `token ${t} has ${count} experts, expected ${wanted}`);
  }
  const countOf = (flags: Uint8Array, e: number) =>
    flags.reduce((n, flag, i) => n + (i % numExperts === e ? flag : 0), 0);
  for (let e = 0; e < numExperts; e++) {
    const [count, wanted] = [countOf(own, e), countOf(expected, e)];
    if (count !== wanted)
      return verdict('selection', 'disagree', `expert ${e} has ${count} tokens, expected ${wanted} (T/E)`);
  }
  const [ours, theirs] = [dot(logits.value.data, own), dot(logits.value.data, expected)];
  let [size, error] = [0, 0];
  for (let i = 0; i < own.length; i++) {
    size += Math.abs(logits.value.data[i]) * (own[i] + expected[i]);
    error += logits.error[i] * (own[i] + expected[i]);
  }
  // a solver adds and subtracts scores along its paths, which are at most 2E long
  const allowed = error + judge.router.sum(numTokens + 2 * numExperts) * size;
  const scores = `total score ${ours}, the largest is ${theirs}`;
  if (theirs - ours > allowed) return verdict('selection', 'disagree', `not the best assignment: ${scores}`);
  return verdict('selection', 'admissible', `another assignment of the same worth: ${scores}`);
}

export function expertsIn(flags: Uint8Array): number[] {
  const experts: number[] = [];
  flags.forEach((flag, e) => {
    if (flag) experts.push(e);
  });
  return experts;
}
