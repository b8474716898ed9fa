/** Faults of the experts: each one's FFN over the rows that it was given. */
import { activations, type DispatchPlan, erf, type Matrix, runExperts, sigmoid, type Weights } from 'xmoe';
import type { LayerCall } from 'xmoe/oracle';
import { type Fault, faultsOf, OURS, XMOE } from './fault.js';
import { expertOfRow, honest, mapped, mappedAll, type Parts, significant } from './parts.js';

const ofExperts = faultsOf(['experts', 'non-finite']);

/** The right experts with other weights. */
function withWeights(change: (weights: Weights, call: LayerCall) => Partial<Weights>): Partial<Parts> {
  return {
    experts: (plan, call) =>
      honest.experts(plan, { ...call, weights: { ...call.weights, ...change(call.weights, call) } }),
  };
}

/** The rows of the experts, changed value by value. */
function withRows(
  change: (
    value: number,
    given: {
      expert: number;
      token: number;
      row: number;
      rowOfExpert: number;
      column: number;
      plan: DispatchPlan;
      call: LayerCall;
    },
  ) => number,
): Partial<Parts> {
  return {
    experts(plan, call) {
      const { hidden, out } = honest.experts(plan, call);
      const expertOf = expertOfRow(plan);
      return {
        hidden,
        out: mapped(out, (value, row, column) =>
          change(value, {
            expert: expertOf[row],
            token: plan.tokenIndex[row],
            row,
            rowOfExpert: row - plan.expertOffsets[expertOf[row]],
            column,
            plan,
            call,
          }),
        ),
      };
    },
  };
}

interface Inner {
  /** σ, of h. */
  readonly apply: (h: number) => number;
  readonly up: number;
  readonly gate: number | undefined;
  readonly call: LayerCall;
}

/** Experts written out, with another inner function; `own` is which activations it concerns. */
function withInner(
  own: readonly LayerCall['config']['activation'][] | 'any',
  inner: (given: Inner) => number,
): Partial<Parts> {
  return {
    experts(plan, call) {
      const { config, weights, x } = call;
      if (own !== 'any' && !own.includes(config.activation)) return honest.experts(plan, call);
      const { apply } = activations[config.activation];
      // an expert whose up projection is the identity and whose activation changes nothing: pre-activations of both kinds
      const linearOf = (list: readonly Matrix[], bias: Matrix | undefined) => linearRows(plan, x, list, bias);
      const up = linearOf(weights.up, weights.upBias);
      const gate = weights.gate && linearOf(weights.gate, weights.gateBias);
      const hidden = mapped(up, (value, i, j) => inner({ apply, up: value, gate: gate?.data[i * up.cols + j], call }));
      return {
        hidden,
        out: linearRows(
          { ...plan, tokenIndex: Int32Array.from(plan.tokenIndex, (_, i) => i) },
          hidden,
          weights.down,
          weights.downBias,
        ),
      };
    },
  };
}

/** w_e · a of each row, and its bias; rows of a skip expert are zero. */
function linearRows(plan: DispatchPlan, a: Matrix, list: readonly Matrix[], bias: Matrix | undefined): Matrix {
  const expertOf = expertOfRow(plan);
  const numSkip = plan.selection.numExperts - list.length;
  const blank = {
    rows: plan.tokenIndex.length,
    cols: list[0].rows,
    data: new Float64Array(plan.tokenIndex.length * list[0].rows),
  };
  return mapped(blank, (_, i, j) => {
    const e = expertOf[i] - numSkip;
    if (e < 0) return 0;
    let sum = bias?.data[e * bias.cols + j] ?? 0;
    for (let l = 0; l < a.cols; l++) sum += a.data[plan.tokenIndex[i] * a.cols + l] * list[e].data[j * a.cols + l];
    return sum;
  });
}

const gated = ['swiglu', 'geglu'] as const;
const tanhGelu = (constant: number) => (h: number) => h * sigmoid(2 * constant * (h + 0.044715 * h ** 3));

const ACTIVATIONS: readonly Fault[] = [
  ofExperts(
    'tanh GELU for erf GELU',
    XMOE,
    withInner(['gelu'], ({ up }) => activations.gelu_tanh.apply(up)),
  ),
  ofExperts(
    'erf GELU for tanh GELU',
    XMOE,
    withInner(['gelu_tanh'], ({ up }) => activations.gelu.apply(up)),
  ),
  ofExperts(
    'the truncated constant 0.79788456 in tanh GELU',
    'XMoE’s code',
    withInner(['gelu_tanh'], ({ up }) => tanhGelu(0.79788456)(up)),
    'f64',
  ),
  ofExperts(
    'the constant 0.798 in tanh GELU',
    OURS,
    withInner(['gelu_tanh'], ({ up }) => tanhGelu(0.798)(up)),
  ),
  ofExperts(
    'h·sigmoid(1.702 h) for erf GELU',
    OURS,
    withInner(['gelu'], ({ up }) => up * sigmoid(1.702 * up)),
  ),
  ofExperts(
    'silu for GELU',
    OURS,
    withInner(['gelu', 'gelu_tanh'], ({ up }) => activations.silu.apply(up)),
  ),
  ofExperts(
    'sigmoid for silu',
    OURS,
    withInner(['silu'], ({ up }) => sigmoid(up)),
  ),
  ofExperts(
    'a leak of 0.01 in relu',
    OURS,
    withInner(['relu'], ({ up }) => (up < 0 ? 0.01 * up : up)),
  ),
  ofExperts(
    'relu cut at 6',
    OURS,
    withInner(['relu'], ({ up }) => Math.min(6, Math.max(0, up))),
  ),
  ofExperts(
    'silu as h·e^h / (1 + e^h), which overflows in float32',
    'llama.cpp #27899',
    withInner(['silu'], ({ up }) => {
      const e = Math.fround(Math.exp(up));
      return (up * e) / (1 + e);
    }),
  ),
  ofExperts(
    'tanh as (e^2u − 1) / (e^2u + 1), which overflows in float32',
    'llama.cpp #27899',
    withInner(['gelu_tanh'], ({ up }) => {
      const e = Math.fround(Math.exp(2 * 0.7978845608028654 * (up + 0.044715 * up ** 3)));
      return 0.5 * up * (1 + (e - 1) / (e + 1));
    }),
  ),
  ofExperts(
    'an erf that is right to 3 digits',
    OURS,
    withInner(['gelu'], ({ up }) => 0.5 * up * (1 + Math.round(1000 * erf(up / Math.SQRT2)) / 1000)),
  ),
  ofExperts(
    'gate and up swapped',
    OURS,
    withInner(gated, ({ apply, up, gate }) => apply(up) * gate!),
  ),
  ofExperts(
    'the gate without its activation',
    OURS,
    withInner(gated, ({ up, gate }) => up * gate!),
  ),
  ofExperts(
    'silu of the gate in geglu',
    OURS,
    withInner(['geglu'], ({ up, gate }) => activations.silu.apply(gate!) * up),
  ),
  ofExperts(
    'the activation after the product',
    OURS,
    withInner(gated, ({ apply, up, gate }) => apply(up * gate!)),
  ),
  ofExperts(
    'the gate clamped at 7',
    OURS,
    withInner(gated, ({ apply, up, gate }) => apply(Math.min(7, gate!)) * up),
  ),
  ofExperts(
    '1 added to up, as in another gated form',
    OURS,
    withInner(gated, ({ apply, up, gate }) => apply(gate!) * (up + 1)),
  ),
  ofExperts(
    'hidden activations rounded to bf16',
    OURS,
    withInner('any', ({ apply, up, gate }) => significant(8)(gate === undefined ? apply(up) : apply(gate) * up)),
  ),
  ofExperts(
    'hidden activations rounded to f16',
    OURS,
    withInner('any', ({ apply, up, gate }) => significant(11)(gate === undefined ? apply(up) : apply(gate) * up)),
  ),
];

/** Row i of a bias comes from row `from(i)`. */
const rowsFrom = (a: Matrix | undefined, from: (i: number) => number) =>
  a && mapped(a, (_, i, j) => a.data[from(i) * a.cols + j]);
const present = <T extends object>(parts: T) =>
  Object.fromEntries(Object.entries(parts).filter(([, part]) => part !== undefined)) as Partial<Weights>;
const without = (weights: Weights, key: 'upBias' | 'gateBias' | 'downBias') =>
  present({ [key]: rowsFrom(weights[key], i => i) && mapped(weights[key]!, () => 0) });

const BIASES: readonly Fault[] = [
  ofExperts(
    'no bias of the up projection',
    OURS,
    withWeights(weights => without(weights, 'upBias')),
  ),
  ofExperts(
    'no bias of the gate projection',
    OURS,
    withWeights(weights => without(weights, 'gateBias')),
  ),
  ofExperts(
    'no bias of the down projection',
    'ORT #27360',
    withWeights(weights => without(weights, 'downBias')),
  ),
  ofExperts(
    'the down bias added twice',
    'ORT #27360',
    withWeights(({ downBias }) => present({ downBias: downBias && mapped(downBias, b => 2 * b) })),
  ),
  ofExperts(
    'biases of the expert before',
    'flashinfer #3957',
    withWeights(({ upBias, downBias }) =>
      present({
        upBias: rowsFrom(upBias, e => Math.max(0, e - 1)),
        downBias: rowsFrom(downBias, e => Math.max(0, e - 1)),
      }),
    ),
  ),
  ofExperts(
    'the bias of expert 0 for all',
    'applied-ai #25',
    withWeights(({ upBias }) => present({ upBias: rowsFrom(upBias, () => 0) })),
  ),
  ofExperts('the up bias added after the activation', OURS, {
    experts(plan, call) {
      const { upBias } = call.weights;
      if (!upBias || call.weights.gate) return honest.experts(plan, call);
      const { upBias: _, downBias: __, ...bare } = call.weights;
      const { hidden } = runExperts(call.x, plan, bare, call.config);
      const numSkip = plan.selection.numExperts - bare.up.length;
      const expertOf = expertOfRow(plan);
      const later = mapped(hidden, (h, i, j) =>
        expertOf[i] < numSkip ? 0 : h + upBias.data[(expertOf[i] - numSkip) * upBias.cols + j],
      );
      return {
        hidden,
        out: linearRows(
          { ...plan, tokenIndex: Int32Array.from(plan.tokenIndex, (_, i) => i) },
          later,
          call.weights.down,
          call.weights.downBias,
        ),
      };
    },
  }),
];

const isSquare = ({ rows, cols }: Matrix) => rows === cols;
const transposed = (a: Matrix) => mapped(a, (_, i, j) => a.data[j * a.cols + i]);
/** Experts in another place of the list. */
const moved = (from: (e: number, E: number) => number) =>
  withWeights(({ up, down }) => ({
    up: up.map((_, e) => up[from(e, up.length)]),
    down: down.map((_, e) => down[from(e, down.length)]),
  }));

const WEIGHTS: readonly Fault[] = [
  ofExperts(
    'transposed weights where they are square',
    'sglang #17172',
    withWeights(({ up, down }) => (isSquare(up[0]) ? { up: up.map(transposed), down: down.map(transposed) } : {})),
  ),
  ofExperts(
    'strides of two dimensions confused in the down projection',
    'sglang #17172',
    withWeights(({ down }) => ({ down: down.map(a => mapped(a, (_, i, j) => a.data[j * a.rows + i])) })),
  ),
  ofExperts(
    'a neighbour’s expert: the offset of a shard is off by one',
    'flashinfer #3547',
    moved((e, E) => (2 * e >= E ? Math.max(0, e - 1) : e)),
  ),
  ofExperts(
    'zeros from the experts of the second shard',
    'flashinfer #3957',
    withRows((v, { expert, call }) => (2 * expert > call.config.numExperts ? 0 : v)),
  ),
  ofExperts(
    'with a skip expert, each expert is the next one',
    OURS,
    withWeights(({ up, down }, { config }) =>
      config.skipExpert ? { up: [...up.slice(1), up[0]], down: [...down.slice(1), down[0]] } : {},
    ),
  ),
  ofExperts(
    'the skip expert computes',
    OURS,
    withRows((v, { expert, token, column, call }) =>
      call.config.skipExpert && expert === 0 ? call.x.data[token * call.x.cols + column] : v,
    ),
  ),
  ofExperts(
    'experts from 256 on are read modulo 256',
    'imp #2056',
    moved(e => e % 256),
  ),
  ofExperts(
    'offsets of weights wrap',
    'Liger #1248',
    moved((e, E) => (E > 64 ? e % 64 : e)),
  ),
  ofExperts(
    'weights in bf16 without saying so',
    OURS,
    withWeights(({ up, down }) => ({ up: mappedAll(up, significant(8)), down: mappedAll(down, significant(8)) })),
  ),
  ofExperts('tf32 products without saying so', OURS, {
    experts: (plan, call) =>
      honest.experts(plan, {
        ...call,
        x: mapped(call.x, significant(11)),
        weights: { ...call.weights, up: mappedAll(call.weights.up, significant(11)) },
      }),
  }),
];

const cut = (list: readonly Matrix[], isLost: (column: number, cols: number) => boolean) =>
  mappedAll(list, v => v).map(a => mapped(a, (v, _, j) => (isLost(j, a.cols) ? 0 : v)));
const tail = (j: number, cols: number) => cols > 4 && j >= cols - (cols % 4);

const SIZES: readonly Fault[] = [
  ofExperts(
    'odd sizes: the tail of m is not read',
    'llama.cpp #16796',
    withWeights(({ down }) => ({ down: cut(down, tail) })),
  ),
  ofExperts(
    'odd sizes: the tail of d is not read',
    'llama.cpp #16796',
    withWeights(({ up }) => ({ up: cut(up, tail) })),
  ),
  ofExperts(
    'odd sizes: the tail of d is not written',
    'llama.cpp #16796',
    withRows((v, { column, call }) => (tail(column, call.x.cols) ? 0 : v)),
  ),
  ofExperts(
    'right up to four vectors of 4 of m, the fifth is not read',
    'a SIMD library',
    withWeights(({ down }) => ({ down: cut(down, j => j >= 16) })),
  ),
  ofExperts(
    'a hidden width of at most 256',
    OURS,
    withWeights(({ down }) => ({ down: cut(down, j => j >= 256) })),
  ),
  ofExperts(
    'a model width of at most 512',
    OURS,
    withWeights(({ up }) => ({ up: cut(up, j => j >= 512) })),
  ),
  ofExperts(
    'an expert computes at most 16 rows',
    'llama.cpp #29128',
    withRows((v, { rowOfExpert }) => (rowOfExpert < 16 ? v : 0)),
  ),
  ofExperts(
    'the last row of an odd number is not computed',
    OURS,
    withRows((v, { row, plan }) => (row % 2 === 0 && row === plan.tokenIndex.length - 1 && row > 0 ? 0 : v)),
  ),
  ofExperts('a path for one row that forgets the down bias', 'sglang #27869', {
    experts(plan, call) {
      const { downBias: _, ...bare } = call.weights;
      return honest.experts(plan, plan.tokenIndex.length === 1 ? { ...call, weights: bare } : call);
    },
  }),
  ofExperts(
    'above 32 tokens another kernel, with tanh GELU',
    'sglang #27869',
    (() => {
      const other = withInner(['gelu', 'silu'], ({ up }) => activations.gelu_tanh.apply(up));
      return {
        experts: (plan, call) => (call.x.rows > 32 ? other.experts!(plan, call) : honest.experts(plan, call)),
      } satisfies Partial<Parts>;
    })(),
  ),
];

const WEIGHTED: readonly Fault[] = [
  ofExperts('the weight applied before the activation', XMOE, {
    experts(plan, call) {
      const { weights, x } = call;
      const weighted = mapped(
        { rows: plan.tokenIndex.length, cols: x.cols, data: new Float64Array(plan.tokenIndex.length * x.cols) },
        (_, i, c) => plan.combineWeight[i] * x.data[plan.tokenIndex[i] * x.cols + c],
      );
      return runExperts(
        weighted,
        { ...plan, tokenIndex: Int32Array.from(plan.tokenIndex, (_, i) => i) },
        weights,
        call.config,
      );
    },
  }),
];

export const expertFaults: readonly Fault[] = [...ACTIVATIONS, ...BIASES, ...WEIGHTS, ...SIZES, ...WEIGHTED];
