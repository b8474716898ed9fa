/**
 * Exact probes: calls whose probabilities are exact in every format, so that what margins cannot decide is decided. Equal
 * logits of 2^n experts make each p = 2^-n, logits of 0 and −1000 make 1 and 0, and all partial masses are exact.
 */
import { activations } from '../../activations.js';
import { zeros } from '../../matrix.js';
import { selectExceed, selectThreshold, selectWithin } from '../../selection/threshold.js';
import type { ActivationName, Matrix } from '../../types.js';
import type { Implementation, LayerCall, Outputs } from '../types.js';
import { answerOf } from './behaviour.js';

/** One call with one row of probabilities, the same for each of its tokens. */
export interface Probe {
  readonly name: string;
  readonly probs: readonly number[];
  readonly threshold: number;
  readonly call: LayerCall;
}

/** The rules that the probes tell apart, each by the number of experts that it takes. */
export type RuleName =
  | 'XMoE'
  | 'XMoE, but the first expert is not forced'
  | 'XMoE, but experts of probability 0 are never taken'
  | 'XMoE, but τ = 1 is every expert'
  | 'exceed (Dynamic MoE): ≤ for <'
  | 'exceed, and the first expert is not forced'
  | 'within (top-p): the crossing expert is lost'
  | 'within, and the first expert is not forced';

export interface ProbeResult {
  readonly probe: Probe;
  /** How many experts XMoE takes. */
  readonly expected: number;
  /** What was seen of the first token, or why nothing was. */
  readonly got: Seen | string;
}

export interface Seen {
  readonly experts: readonly number[];
  /** Whether experts of probability 0 show: in `selected` and `kept` they do, in weights and y they do not. */
  readonly showsZeros: boolean;
  /** Its probabilities of the first token, where it gives them. */
  readonly probs?: readonly number[];
}

export interface ProbeReport {
  /** Empty where the threshold router is refused. */
  readonly results: readonly ProbeResult[];
  /** The rule that it follows in every probe; absent where it follows none of them, or where nothing was seen. */
  readonly rule?: RuleName;
  /** Which of equals comes first: a property, and no fault. Absent where nothing was seen. */
  readonly ties?: 'lowest index first' | 'highest index first' | 'another order';
  /** The first of its own probabilities that is not what exact arithmetic gives: a rule told by such is not told. */
  readonly inexact?: { readonly expected: number; readonly got: number };
}

/** Probabilities, as logits of 0 and −1000 give them, and a threshold: beside each other so that every rule differs. */
const PLAN: readonly (readonly [probs: readonly number[], thresholds: readonly number[]])[] = [
  [level(2), [1 / 2]],
  [level(4), [0, -1, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1]],
  [level(8), [1 / 8, 5 / 16, 5 / 8, 1.5]],
  [
    [0, 0, 1, 0],
    [0, 1 / 2, 1, 1.5],
  ],
  [
    [0, 1 / 2, 0, 1 / 2],
    [1 / 4, 1 / 2, 1],
  ],
];

const NUM_TOKENS = 3;

/** How many experts a rule takes. */
type Rule = (probs: readonly number[], threshold: number) => number;

const takes =
  (select: typeof selectThreshold): Rule =>
  (probs, threshold) =>
    select({ rows: 1, cols: probs.length, data: Float64Array.from(probs) }, threshold).expertIndex.length;
const [xmoe, exceed, within] = [selectThreshold, selectExceed, selectWithin].map(takes);

const RULES: readonly (readonly [RuleName, Rule])[] = [
  ['XMoE', xmoe],
  ['XMoE, but the first expert is not forced', (p, threshold) => (threshold > 0 ? xmoe(p, threshold) : 0)],
  [
    'XMoE, but experts of probability 0 are never taken',
    (p, threshold) => Math.min(xmoe(p, threshold), p.filter(v => v > 0).length),
  ],
  ['XMoE, but τ = 1 is every expert', (p, threshold) => (threshold === 1 ? p.length : xmoe(p, threshold))],
  ['exceed (Dynamic MoE): ≤ for <', exceed],
  ['exceed, and the first expert is not forced', (p, threshold) => (threshold >= 0 ? exceed(p, threshold) : 0)],
  ['within (top-p): the crossing expert is lost', within],
  [
    'within, and the first expert is not forced',
    (p, threshold) => (threshold >= Math.max(...p) ? within(p, threshold) : 0),
  ],
];

/** The probes that an implementation does not refuse: none without a threshold router. */
export async function probesFor(implementation: Implementation): Promise<Probe[]> {
  let activation: ActivationName | undefined;
  for (const name of Object.keys(activations) as ActivationName[]) {
    const answer = await answerOf(implementation, callOf(level(4), 1 / 2, name));
    if ('kind' in answer && answer.kind === 'refused') continue;
    activation = name;
    break;
  }
  if (activation === undefined) return [];
  return PLAN.flatMap(([probs, thresholds]) =>
    thresholds.map(threshold => ({
      name: `p = [${probs.join(', ')}], τ = ${threshold}`,
      probs,
      threshold,
      call: callOf(probs, threshold, activation),
    })),
  );
}

/** Put the probes, and tell which rule answers so. What is wrong with an answer otherwise is for `conform` to say. */
export async function probe(implementation: Implementation): Promise<ProbeReport> {
  const results: ProbeResult[] = [];
  for (const one of await probesFor(implementation)) results.push(await put(implementation, one));
  const seen = results.flatMap(({ probe, got }) => (typeof got === 'string' ? [] : [{ probe, ...got }]));
  if (seen.length === 0) return { results };
  const follows = RULES.find(([, count]) => seen.every(answer => agrees(count, answer)));
  return { results, ...(follows && { rule: follows[0] }), ...tiesIn(seen), ...inexactIn(seen) };
}

async function put(implementation: Implementation, probe: Probe): Promise<ProbeResult> {
  const expected = xmoe(probe.probs, probe.threshold);
  try {
    return { probe, expected, got: takenIn(await implementation.run(probe.call), probe.probs.length) };
  } catch (error) {
    return { probe, expected, got: error instanceof Error ? error.message : String(error) };
  }
}

type Answer = Seen & { readonly probe: Probe };

function agrees(count: Rule, { probe: { probs, threshold }, experts, showsZeros }: Answer): boolean {
  const taken = count(probs, threshold);
  return experts.length === (showsZeros ? taken : Math.min(taken, probs.filter(p => p > 0).length));
}

function inexactIn(answers: readonly Answer[]): Pick<ProbeReport, 'inexact'> {
  for (const { probe, probs = [] } of answers) {
    const e = probs.findIndex((p, i) => p !== probe.probs[i]);
    if (e >= 0) return { inexact: { expected: probe.probs[e], got: probs[e] } };
  }
  return {};
}

/** Which of equals came first, where some of them were taken and some were not. */
function tiesIn(answers: readonly Answer[]): Pick<ProbeReport, 'ties'> {
  const cuts = answers.flatMap(({ probe: { probs }, experts }) => {
    const best = probs.flatMap((p, e) => (p === Math.max(...probs) ? [e] : []));
    const isCut = experts.length > 0 && experts.length < best.length && experts.every(e => best.includes(e));
    return isCut ? [{ best, experts }] : [];
  });
  if (cuts.length === 0) return {};
  const all = (part: (best: number[], n: number) => number[]) =>
    cuts.every(({ best, experts }) => part(best, experts.length).join() === experts.join());
  if (all((best, n) => best.slice(0, n))) return { ties: 'lowest index first' };
  return { ties: all((best, n) => best.slice(-n)) ? 'highest index first' : 'another order' };
}

/** From the first of the outputs that shows the experts; each expert of a probe has a column of y of its own. */
function takenIn(outputs: Outputs, numExperts: number): Seen | string {
  const name = ['selected', 'kept', 'combine', 'y'].find(key => outputs.has(key));
  const tensor = name === undefined ? undefined : outputs.get(name);
  if (tensor?.shape.join() !== `${NUM_TOKENS},${numExperts}`) return 'it gave nothing that shows its selection';
  const experts = Array.from({ length: numExperts }, (_, e) => e).filter(e => tensor.data[e] !== 0);
  const probs = outputs.get('probs');
  const isWhole = probs?.shape.join() === tensor.shape.join();
  return {
    experts,
    showsZeros: name === 'selected' || name === 'kept',
    ...(isWhole && { probs: Array.from(probs!.data.subarray(0, numExperts)) }),
  };
}

function level(numExperts: number): number[] {
  return Array<number>(numExperts).fill(1 / numExperts);
}

/** d = E and m = 1; expert e writes column e of y alone. */
function callOf(probs: readonly number[], threshold: number, activation: ActivationName): LayerCall {
  const numExperts = probs.length;
  const { gated } = activations[activation];
  const experts = probs.map((_, e) => e);
  const first = (rows: number, value: (i: number) => number): Matrix => {
    const a = zeros(rows, numExperts);
    for (let i = 0; i < rows; i++) a.data[i * numExperts] = value(i);
    return a;
  };
  return {
    config: { router: 'threshold', numExperts, threshold, capacityFactor: null, activation },
    x: first(NUM_TOKENS, () => 1),
    weights: {
      router: first(numExperts, e => (probs[e] === 0 ? -1000 : 0)),
      up: experts.map(() => first(1, () => 1)),
      ...(gated && { gate: experts.map(() => first(1, () => 1)) }),
      down: experts.map(e => ({ rows: numExperts, cols: 1, data: Float64Array.from(experts, c => (c === e ? 1 : 0)) })),
    },
    inputs: {},
  };
}
