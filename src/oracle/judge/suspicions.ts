/** Faults that layers are known for, each with the y that it gives. */
import { sigmoid } from '../../activations.js';
import { planWithinCapacity } from '../../dispatch.js';
import { row } from '../../matrix.js';
import { numColumns, routers } from '../../selection/routers.js';
import { selectExceed, type selectThreshold, selectWithin } from '../../selection/threshold.js';
import type { ActivationName, Matrix, Weights } from '../../types.js';
import type { Approximate } from '../bounds/approximate.js';
import { arithmeticNamed, formats } from '../bounds/arithmetic.js';
import { combineApprox, weightsApprox } from '../bounds/combine-approx.js';
import { expertsApprox, type ForwardApprox, planOfKept } from '../bounds/forward-approx.js';
import { expertRounding, holds } from '../bounds/rounding.js';
import type { LayerCall } from '../types.js';
import { type Compared, IN, OUT } from './choices.js';
import { otherDrops } from './drops.js';
import type { Judge } from './judge.js';
import { keptFlags, rankedSelection } from './judge-dispatch.js';

export interface Explanation {
  readonly stage: 'selection' | 'dispatch' | 'experts' | 'combine';
  readonly detail: string;
  /** It follows from y alone: what the implementation says of a simpler call may tell better. */
  readonly isGuess?: boolean;
}

/** What y was judged by. */
export interface Expected {
  readonly y: Approximate;
  readonly forward: ForwardApprox;
  /** [T, E] */
  readonly kept: Uint8Array;
  /** Before capacity, OUT, IN or EITHER. [T, E] */
  readonly chosen: Uint8Array;
  /** The combine weights, [T, E]. */
  readonly weights: Approximate;
  readonly compared: Compared;
}

export interface Suspicion extends Pick<Explanation, 'stage' | 'isGuess'> {
  readonly name: string;
  readonly give: () => Approximate;
}

const PADDING = 'padded tokens are routed';

/** Every known fault that may apply to this call, as the y that it would give. */
export function suspicions(judge: Judge, expected: Expected): Suspicion[] {
  const { call, experts: rounding } = judge;
  const { forward, kept, weights } = expected;
  const combined = (w: Approximate, out = forward.out) => combineApprox(out, w, forward.plan, kept, rounding);
  const ofWeights = weightSuspicions(judge, expected).map(
    ([name, other]): Suspicion => ({ stage: 'combine', name, give: () => combined(other()) }),
  );
  const ofPairs = pairSuspicions(judge, expected).map(
    ([stage, name, pairs]): Suspicion => ({
      stage,
      name,
      isGuess: stage !== 'combine' && name !== PADDING,
      give: () => withPairs(judge, expected, pairs()),
    }),
  );
  const ofExperts = expertSuspicions(call.weights, call.config.activation).map(
    ([name, other, activation]): Suspicion => ({
      stage: 'experts',
      name,
      give: () => {
        const config = { ...call.config, activation };
        return combined(weights, expertsApprox(call.x, forward.plan, other, config, rounding).out);
      },
    }),
  );
  const bias = call.weights.downBias;
  const outside = 'the output bias outside the weighting';
  const ofBias: Suspicion[] = bias
    ? [{ stage: 'combine', name: outside, give: () => combined(weights, biasOutside(forward, weights, bias)) }]
    : [];
  const ofX: Suspicion[] = [
    { stage: 'combine', name: 'x is added here too (the residual)', give: () => withX(expected.y, call.x, () => 1) },
  ];
  if (call.config.skipExpert) {
    const [{ cols }, w] = [weights.value, weights.value.data];
    const name = 'the skip expert gives x, weighted';
    ofX.push({ stage: 'combine', name, give: () => withX(expected.y, call.x, t => w[t * cols]) });
  }
  return [...ofWeights, ...ofBias, ...ofX, ...ofPairs, ...ofExperts];
}

/** y + s x. */
function withX({ value, error }: Approximate, x: Matrix, scale: (token: number) => number): Approximate {
  const added = (i: number) => scale(Math.floor(i / x.cols)) * x.data[i];
  return {
    value: { ...value, data: Float64Array.from(value.data, (v, i) => v + added(i)) },
    error: error.map((e, i) => e + 2 ** -22 * (Math.abs(value.data[i]) + Math.abs(added(i)))),
  };
}

/** A smaller format than was stated: of y, if that is what all its numbers are in, or of the experts. */
export function formatSuspicions({ call, arithmetic, experts }: Judge, expected: Expected, y: Matrix): Suspicion[] {
  const { forward, kept, weights } = expected;
  return (['tf32', 'f16', 'bf16'] as const)
    .filter(name => formats[name].unitRoundoff > arithmetic.store.unitRoundoff && experts.operands !== 'int8')
    .flatMap((name): Suspicion[] => {
      const smaller = expertRounding(arithmeticNamed(name));
      const summed = { ...experts, store: formats[name] };
      const ofY: Suspicion = {
        stage: 'combine',
        name: `y summed in ${name}`,
        give: () => combineApprox(forward.out, weights, forward.plan, kept, summed),
      };
      const ofExperts: Suspicion = {
        stage: 'experts',
        name: `experts in ${name}`,
        isGuess: true,
        give: () => {
          const { out } = expertsApprox(call.x, forward.plan, call.weights, call.config, smaller);
          return combineApprox(out, weights, forward.plan, kept, experts);
        },
      };
      return holds(formats[name], y.data) ? [ofY, ofExperts] : [ofExperts];
    });
}

type OfToken = (weights: number[], token: number, experts: number[]) => number[];

/** Other weights of the kept experts, token by token. */
function weightSuspicions(
  { call, router, experts }: Judge,
  { kept, weights, compared }: Expected,
): [string, () => Approximate][] {
  const { config } = call;
  const numExperts = numColumns(config);
  const total = (values: readonly number[]) => values.reduce((sum, v) => sum + v, 0);
  const logit = (t: number, e: number) => compared.logits.value.data[t * numExperts + e];
  const changed = (change: OfToken) => () => changedWeights(weights, kept, change, router.u);
  const hasRouter = config.router !== 'hash';
  return [
    ['the kept weights renormalised to a sum of 1', changed(w => w.map(v => v / total(w)))],
    ['the weights squared', changed(w => w.map(v => v * v))],
    ['no weights', changed(w => w.map(() => 1))],
    ['the mean of the experts', changed(w => w.map(() => 1 / w.length))],
    ['the weighted mean of the experts', changed(w => w.map(v => v / w.length))],
    ...(hasRouter
      ? ([
          ['logits for weights', changed((_, t, experts) => experts.map(e => logit(t, e)))],
          ['sigmoids for weights', changed((_, t, experts) => experts.map(e => sigmoid(logit(t, e))))],
          [
            'probabilities for weights',
            () => weightsApprox(kept, compared, { ...config, router: 'dense' }, router, experts),
          ],
        ] as [string, () => Approximate][])
      : []),
    ['weights in the opposite order', changed(w => w.reverse())],
  ];
}

function changedWeights(weights: Approximate, kept: Uint8Array, change: OfToken, u: number): Approximate {
  const { rows, cols } = weights.value;
  const value = { rows, cols, data: new Float64Array(rows * cols) };
  const error = new Float64Array(rows * cols);
  for (let t = 0; t < rows; t++) {
    const experts = Array.from({ length: cols }, (_, e) => e).filter(e => kept[t * cols + e] === IN);
    const own = experts.map(e => weights.value.data[t * cols + e]);
    const relative = Math.max(
      0,
      ...experts.map((e, k) => (own[k] === 0 ? 0 : weights.error[t * cols + e] / Math.abs(own[k]))),
    );
    change(own, t, experts).forEach((w, k) => {
      value.data[t * cols + experts[k]] = w;
      error[t * cols + experts[k]] = Math.abs(w) * (3 * relative + (experts.length + 8) * u);
    });
  }
  return { value, error };
}

/** Σ w (o − b) + Σ b = Σ w (o + (1/w − 1) b). */
function biasOutside({ out, plan }: ForwardApprox, weights: Approximate, bias: Matrix): Approximate {
  const { numExperts } = plan.selection;
  const numSkip = numExperts - bias.rows;
  const value = { ...out.value, data: out.value.data.slice() };
  const error = out.error.slice();
  for (let e = numSkip; e < numExperts; e++) {
    const b = row(bias, e - numSkip);
    for (let i = plan.expertOffsets[e]; i < plan.expertOffsets[e + 1]; i++) {
      const w = weights.value.data[plan.tokenIndex[i] * numExperts + e];
      if (w === 0) continue;
      for (let c = 0; c < b.length; c++) {
        value.data[i * b.length + c] += (1 / w - 1) * b[c];
        error[i * b.length + c] +=
          (weights.error[plan.tokenIndex[i] * numExperts + e] / w + 2 ** -22) * Math.abs(b[c] / w);
      }
    }
  }
  return { value, error };
}

/** Whether the call may drop pairs. */
export function mayDrop({ config }: LayerCall): boolean {
  return config.capacityFactor !== null && routers[config.router].dropOrder !== 'none';
}

/** Whose fault it is that y is of other pairs: of decisions, where they were not told, or of a combine that minds none. */
export function stagesOfPairs({ observation }: Judge): Record<'onSelection' | 'onDispatch', Explanation['stage']> {
  const isTold = (name: string) => observation.tensors.has(name);
  return {
    onSelection: isTold('selected') || isTold('kept') ? 'combine' : 'selection',
    onDispatch: isTold('kept') ? 'combine' : 'dispatch',
  };
}

/** Other pairs than the kept ones, [T, E]. */
function pairSuspicions(
  judge: Judge,
  { kept, chosen, weights, compared }: Expected,
): [Explanation['stage'], string, () => Uint8Array][] {
  const { call } = judge;
  const { config, inputs, x } = call;
  const numExperts = numColumns(config);
  const routing = { logits: compared.logits.value, probs: compared.probs.value };
  const { onSelection, onDispatch } = stagesOfPairs(judge);
  const all = chosen.map(status => (status === OUT ? 0 : 1));
  const suspicions: ReturnType<typeof pairSuspicions> = [
    ...(config.capacityFactor === null
      ? []
      : ([[onDispatch, 'nothing is dropped', () => all]] as ReturnType<typeof pairSuspicions>)),
    [onSelection, 'only the first expert of each token counts', () => firstOnly(kept, weights.value)],
    [onSelection, 'every expert counts', () => new Uint8Array(kept.length).fill(1)],
  ];
  if (inputs.tokenMask && config.router !== 'base_train') {
    const { tokenMask, ...unmasked } = inputs;
    const selected = () => routers[config.router].select(routing, unmasked, config);
    suspicions.push([onSelection, PADDING, () => keptFlags(planWithinCapacity(selected(), routing, unmasked, config))]);
  }
  if (onDispatch === 'dispatch') {
    const selection = rankedSelection(all, x.rows, numExperts, routing, call);
    for (const [name, flags] of otherDrops(call, selection, routing)) suspicions.push(['dispatch', name, flags]);
  }
  if (config.router === 'threshold' && onSelection === 'selection') {
    const keptOf = (select: typeof selectThreshold) => () => {
      const selection = select(routing.probs, config.threshold!, inputs.tokenMask);
      return keptFlags(planWithinCapacity(selection, routing, inputs, config));
    };
    suspicions.push(['selection', 'selected as the "exceed" relative (Dynamic MoE) does', keptOf(selectExceed)]);
    suspicions.push(['selection', 'selected as the "within" relative (top-p) does', keptOf(selectWithin)]);
  }
  return suspicions;
}

/** Each token's kept expert of largest weight. */
function firstOnly(kept: Uint8Array, { cols, data }: Matrix): Uint8Array {
  const only = new Uint8Array(kept.length);
  for (let t = 0; t * cols < kept.length; t++) {
    let best = -1;
    for (let at = t * cols; at < (t + 1) * cols; at++) {
      if (kept[at] === IN && (best < 0 || data[at] > data[best])) best = at;
    }
    if (best >= 0) only[best] = 1;
  }
  return only;
}

function withPairs({ call, router, experts }: Judge, { compared }: Expected, pairs: Uint8Array): Approximate {
  const { x, weights, config } = call;
  const plan = planOfKept(pairs, x.rows, { logits: compared.logits.value, probs: compared.probs.value }, config);
  const { out } = expertsApprox(x, plan, weights, config, experts);
  return combineApprox(out, weightsApprox(pairs, compared, config, router, experts), plan, pairs, experts);
}

function expertSuspicions(weights: Weights, activation: ActivationName): [string, Weights, ActivationName][] {
  const { up, upBias, gate, gateBias, down, downBias, router } = weights;
  const activations: ActivationName[] = gate ? ['swiglu', 'geglu'] : ['relu', 'gelu', 'gelu_tanh', 'silu'];
  const without = (...names: (keyof Weights)[]): Weights =>
    Object.fromEntries(
      Object.entries(weights).filter(([name]) => !names.includes(name as keyof Weights)),
    ) as unknown as Weights;
  const twice = (a: Matrix): Matrix => ({ ...a, data: a.data.map((v: number) => 2 * v) as Matrix['data'] });
  const turn = <T>(list: readonly T[], by: number) => list.map((_, e) => list[(e + by + list.length) % list.length]);
  const turnRows = (a: Matrix, by: number): Matrix => {
    const data = a.data.slice();
    for (let e = 0; e < a.rows; e++) data.set(row(a, (e + by + a.rows) % a.rows), e * a.cols);
    return { ...a, data };
  };
  const turned = (by: number): Weights => ({
    router,
    up: turn(up, by),
    ...(upBias && { upBias: turnRows(upBias, by) }),
    ...(gate && { gate: turn(gate, by) }),
    ...(gateBias && { gateBias: turnRows(gateBias, by) }),
    down: turn(down, by),
    ...(downBias && { downBias: turnRows(downBias, by) }),
  });
  const swapped = (): Weights => ({
    ...without('upBias', 'gateBias'),
    up: gate!,
    gate: up,
    ...(gateBias && { upBias: gateBias }),
    ...(upBias && { gateBias: upBias }),
  });
  const cases: [string, Weights, ActivationName][] = activations
    .filter(other => other !== activation)
    .map(other => [`${other} for ${activation}`, weights, other]);
  if (gate) cases.push(['gate and up swapped', swapped(), activation]);
  if (downBias) {
    cases.push(['no output bias', without('downBias'), activation]);
    cases.push(['the output bias twice', { ...weights, downBias: twice(downBias) }, activation]);
  }
  if (upBias) cases.push(['no bias of the up projection', without('upBias'), activation]);
  if (gateBias) cases.push(['no bias of the gate', without('gateBias'), activation]);
  if (up.length > 1) {
    cases.push(['the next expert’s weights for each expert', turned(1), activation]);
    cases.push(['the previous expert’s weights for each expert', turned(-1), activation]);
  }
  return cases;
}
