/** What is no fault: layers that differ from the reference where the semantics, or their arithmetic, leave them free. */
import { balancedAssignment, capacityOf, type Matrix, type Selection } from 'xmoe';
import { type ArithmeticName, arithmeticNamed, type Implementation, type LayerCall } from 'xmoe/oracle';
import { withoutOutputs } from './behaviour.js';
import { float32, type Numbers, narrow, partsIn, sums } from './numbers.js';
import { type Candidate, honest, layerOfParts, type Parts } from './parts.js';
import { isReal, listsOf, mapped, rowOf, selectionOf, significant } from './tools.js';

export interface Innocent {
  readonly name: string;
  make(): Implementation;
}

function innocent(name: string, change: Partial<Parts>, format: 'f32' | 'f64' = 'f32'): Innocent {
  return { name, make: () => layerOfParts(name, change, format) };
}

/** A layer whose experts compute in another format than float32. */
function inFormat(name: string, arithmetic: ArithmeticName, numbers: Numbers): Innocent {
  const parts = partsIn(float32(sums.forwards), numbers);
  return { name, make: () => ({ ...layerOfParts(name, parts), arithmetic: arithmeticNamed(arithmetic) }) };
}

const f32 = Math.fround;

function ranked(values: readonly number[], ties: (a: number, b: number) => number = (a, b) => a - b): number[] {
  return values.map((_, e) => e).sort((a, b) => values[b] - values[a] || ties(a, b));
}

/** Threshold routers: how many of the ranked experts are taken. */
function taking(
  count: (p: readonly number[], threshold: number) => number,
  ties?: (a: number, b: number) => number,
): Partial<Parts> {
  return {
    select(routing, call) {
      const right = honest.select(routing, call);
      const { router, threshold } = call.config;
      if (router !== 'threshold') return right;
      const lists = listsOf(right).map((list, t) => {
        if (!isReal(call, t)) return list;
        const p = rowOf(routing.probs, t);
        const order = ranked(p, ties);
        const ofRanks = order.map(e => p[e]);
        return order.slice(0, threshold! > 1 ? order.length : Math.max(1, count(ofRanks, threshold!)));
      });
      return selectionOf(lists, right.numExperts);
    },
  };
}

/** Ranks r whose mass before them, as `massBefore` has it, is below τ, up to the first that is not. */
const prefix =
  (massBefore: (p: readonly number[], r: number) => number) => (p: readonly number[], threshold: number) => {
    let r = 1;
    while (r < p.length && massBefore(p, r) < threshold) r++;
    return r;
  };

const sumInF32 = (p: readonly number[], r: number) => p.slice(0, r).reduce((sum, v) => f32(sum + v), 0);

/** Equal values in another order, in the selection of every router and in the first choices of the loss. */
function tiesBy(ties: (a: number, b: number) => number): Partial<Parts> {
  const best = (values: readonly number[]) => ranked(values, ties)[0];
  const choose = (
    list: readonly number[],
    p: readonly number[],
    z: readonly number[],
    noise: readonly number[],
    { config }: LayerCall,
  ) => {
    if (list.length === 0) return list;
    switch (config.router) {
      case 'dense':
        return ranked(p, ties);
      case 'switch':
        return [best(p)];
      case 'base_eval':
        return [best(z)];
      case 'topk': {
        const first = best(p);
        const rest = ranked(
          z.map((v, e) => v + noise[e]),
          ties,
        ).filter(e => e !== first);
        return [first, ...rest.slice(0, list.length - 1)];
      }
      default:
        return list;
    }
  };
  const threshold = taking(
    prefix((p, r) => p.slice(0, r).reduce((a, b) => a + b, 0)),
    ties,
  );
  return {
    select(routing, call) {
      if (call.config.router === 'threshold') return threshold.select!(routing, call);
      const right = honest.select(routing, call);
      const lists = listsOf(right).map((list, t) => {
        const z = rowOf(routing.logits, t);
        return choose(
          list,
          rowOf(routing.probs, t),
          z,
          call.inputs.noise ? rowOf(call.inputs.noise, t) : z.map(() => 0),
          call,
        );
      });
      return selectionOf(lists, right.numExperts);
    },
    loss({ probs }, _, call) {
      if (call.config.router === 'hash' || call.config.router.startsWith('base')) return 0;
      const real = Array.from({ length: probs.rows }, (_, t) => t).filter(t => isReal(call, t));
      const firsts = real.map(t => best(rowOf(probs, t)));
      return (
        firsts.reduce(
          (sum, e) =>
            sum + real.reduce((mean, t) => mean + probs.data[t * probs.cols + e], 0) / real.length / real.length,
          0,
        ) * probs.cols
      );
    },
    lossBackward(trace, call) {
      const { probs } = trace.routing;
      const right = honest.lossBackward(trace, call);
      if (right.data.every((v: number) => v === 0)) return right;
      const real = Array.from({ length: probs.rows }, (_, t) => t).filter(t => isReal(call, t));
      const firsts = real.map(t => best(rowOf(probs, t)));
      const share = (e: number) => firsts.filter(f => f === e).length / real.length;
      return mapped(right, (_, t, e) =>
        isReal(call, t) ? (call.config.auxLossCoef! * probs.cols * share(e)) / real.length : 0,
      );
    },
  };
}

/** Some order that is neither that of the indices nor its reverse. */
const scrambled = (a: number, b: number) => ((a * 7919) % 613) - ((b * 7919) % 613) || a - b;

const isOpen = ({ config }: LayerCall) => ['topk', 'switch', 'hash', 'base_eval'].includes(config.router);

/** Who comes first within a rank, in the routers that leave it open. */
function dropping(within: (a: Candidate, b: Candidate) => number): Partial<Parts> {
  return {
    keep(queues, capacity, call, selection) {
      const others = isOpen(call)
        ? queues.map(queue => [...queue].sort((a, b) => a.rank - b.rank || within(a, b)))
        : queues;
      return honest.keep(others, capacity, call, selection);
    },
  };
}

/** levels − rank + p in float32, levels the largest number of experts of a token. */
function oneNumberPriority(round: (v: number) => number): Partial<Parts> {
  return {
    keep(queues, capacity, call, selection) {
      const levels = Math.max(0, ...listsOf(selection).map(list => list.length));
      const key = ({ rank, prob }: Candidate) => round(levels - rank + prob);
      return honest.keep(
        queues.map(queue => [...queue].sort((a, b) => key(b) - key(a) || a.token - b.token)),
        capacity,
        call,
        selection,
      );
    },
  };
}

function capacityInF32(formula: (T: number, E: number, factor: number) => number): Partial<Parts> {
  return {
    capacity(call, selection) {
      const { config, x } = call;
      const right = honest.capacity(call, selection);
      if (right === Number.POSITIVE_INFINITY) return right;
      const T = Array.from({ length: x.rows }, (_, t) => t).filter(t => isReal(call, t)).length;
      const share = formula(T, config.numExperts, config.capacityFactor!);
      return Math.min(T, Math.max(Math.ceil(share), capacityOf(T, 0, config.minCapacity ?? 4, 1)));
    },
  };
}

/** The balanced assignment of the tokens in reverse: where several are best, another one. */
const otherAssignment: Partial<Parts> = {
  select(routing, call): Selection {
    const right = honest.select(routing, call);
    if (call.config.router !== 'base_train') return right;
    const real = Array.from({ length: call.x.rows }, (_, t) => t)
      .filter(t => isReal(call, t))
      .reverse();
    const columns = routing.logits.cols;
    const reversed = {
      rows: real.length,
      cols: columns,
      data: Float64Array.from(real.flatMap(t => rowOf(routing.logits, t).reverse())),
    };
    const expertOf = balancedAssignment(reversed);
    const lists: number[][] = Array.from({ length: call.x.rows }, () => []);
    real.forEach((t, i) => {
      lists[t] = [columns - 1 - expertOf[i]];
    });
    return selectionOf(lists, right.numExperts);
  },
};

/** Softmax by other formulas, in float32. */
function softmaxBy(formula: (z: readonly number[], max: number) => number[]): Partial<Parts> {
  return {
    probs: logits => ({
      ...logits,
      data: Float64Array.from(
        Array.from({ length: logits.rows }, (_, t) => rowOf(logits, t)).flatMap(z => formula(z, Math.max(...z))),
      ),
    }),
  };
}

const total = (values: readonly number[]) => values.reduce((sum, v) => f32(sum + v), 0);
const flushed = (v: number) => (Math.abs(v) < 2 ** -126 ? 0 : v);

function saying(name: string, ...missing: string[]): Innocent {
  return innocent(name, { outputs: outputs => withoutOutputs(outputs, missing) });
}

export const innocents: readonly Innocent[] = [
  innocent('the reference in float64', {}, 'f64'),
  innocent('the reference rounded to float32', {}),

  innocent('(cumsum − p) < τ, in float32', taking(prefix((p, r) => f32(sumInF32(p, r + 1) - p[r])))),
  innocent('the mass before a rank summed in float32', taking(prefix(sumInF32))),
  innocent(
    'the mass before a rank summed backwards',
    taking(prefix((p, r) => p.slice(0, r).reduceRight((sum, v) => sum + v, 0))),
  ),
  innocent(
    'τ rounded to float32',
    taking((p, threshold) => prefix((q, r) => q.slice(0, r).reduce((a, b) => a + b, 0))(p, f32(threshold))),
  ),
  innocent(
    'of equals the highest index first',
    tiesBy((a, b) => b - a),
  ),
  innocent('of equals one or the other', tiesBy(scrambled)),

  innocent('the one-number priority in float32', oneNumberPriority(f32)),
  innocent(
    'capacity in float32 as (T / E) · γ',
    capacityInF32((T, E, factor) => f32(f32(T / E) * f32(factor))),
  ),
  innocent(
    'capacity in float32 as γ · T / E',
    capacityInF32((T, E, factor) => f32(f32(f32(factor) * T) / E)),
  ),
  innocent(
    'within a rank, by position',
    dropping((a, b) => a.token - b.token),
  ),
  innocent(
    'within a rank, the last first',
    dropping((a, b) => b.token - a.token),
  ),
  innocent(
    'within a rank, the least probable first',
    dropping((a, b) => a.prob - b.prob),
  ),
  innocent('another of the best balanced assignments', otherAssignment),

  innocent(
    'softmax as e^(z − log Σ e^z)',
    softmaxBy((z, max) => {
      const log = f32(Math.log(total(z.map(v => f32(Math.exp(f32(v - max)))))));
      return z.map(v => f32(Math.exp(f32(f32(v - max) - log))));
    }),
  ),
  innocent(
    'softmax with 2^(z · log₂ e)',
    softmaxBy((z, max) => {
      const powers = z.map(v => f32(2 ** f32(f32(v - max) * f32(Math.LOG2E))));
      const reciprocal = f32(1 / total(powers));
      return powers.map(power => f32(power * reciprocal));
    }),
  ),
  innocent('numbers below 2^-126 flushed to 0', {
    ...Object.fromEntries(
      (['logits', 'probs'] as const).map(part => [
        part,
        (...given: [never, never]) =>
          mapped((honest[part] as (...g: unknown[]) => Matrix)(...given), v => flushed(f32(v))),
      ]),
    ),
    combine: (...given) => mapped(honest.combine(...given), v => flushed(f32(v))),
  }),

  innocent('float32, sums forwards', partsIn(float32(sums.forwards))),
  innocent('float32, sums backwards', partsIn(float32(sums.backwards))),
  innocent('float32, sums by pairs', partsIn(float32(sums.pairwise))),
  innocent('float32, sums in eight lanes', partsIn(float32(sums.lanes))),
  innocent('float32, sums in blocks', partsIn(float32(sums.blocks))),
  innocent('float32, sums from the largest', partsIn(float32(sums.sorted))),
  innocent('float32, products and sums fused', partsIn(float32(sums.forwards, true))),
  innocent('float32, fused in lanes', partsIn(float32(sums.lanes, true))),
  inFormat('bf16 experts', 'bf16', narrow(8, sums.lanes)),
  inFormat('bf16 experts, kept in float32', 'bf16', narrow(8, sums.forwards, true)),
  inFormat('bf16 experts on tensor cores', 'bf16', narrow(8, sums.truncated)),
  inFormat('tf32 experts', 'tf32', narrow(11, sums.lanes, true)),
  inFormat('tf32 experts on tensor cores', 'tf32', narrow(11, sums.truncated, true)),
  inFormat('float32 experts that say tf32', 'tf32', float32(sums.pairwise)),
  inFormat('float32 experts that say bf16', 'bf16', float32(sums.pairwise)),

  saying('y alone', 'logits', 'probs', 'selected', 'kept', 'combine', 'expert_out', 'load_balancing_loss'),
  saying('y and its routing', 'logits', 'combine', 'expert_out', 'load_balancing_loss'),
  saying('all but the experts’ rows', 'expert_out'),
  saying('y and what was kept', 'logits', 'probs', 'selected', 'combine', 'expert_out'),
];

/** f16 has few numbers below 6.1e-5 and none above 65504: it is for layers of moderate values. */
export const moderateInnocents: readonly Innocent[] = [
  inFormat('f16 experts', 'f16', { ...narrow(11, sums.lanes), store: half, operand: half }),
];

/** To the nearest float16, gradual underflow included. */
function half(value: number): number {
  const isSmall = Math.abs(value) < 2 ** -14;
  return isSmall ? Math.round(value * 2 ** 24) / 2 ** 24 : significant(11)(value);
}
