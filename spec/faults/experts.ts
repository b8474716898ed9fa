/** Faults of the experts: each one's FFN over the rows that it was given. */
import { activations, type DispatchPlan, type Matrix, runExperts, type Weights } from 'xmoe';
import type { LayerCall } from 'xmoe/oracle';
import { withInner } from './activations.js';
import { type Fault, faultsOf, OURS, XMOE } from './fault.js';
import { honest, type Parts } from './parts.js';
import { expertOfRow, linearRows, mapped, mappedAll, ofRows, significant } from './tools.js';

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
        out: linearRows(ofRows(plan), later, call.weights.down, call.weights.downBias),
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
  list.map(a => mapped(a, (v, _, j) => (isLost(j, a.cols) ? 0 : v)));
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
      return runExperts(weighted, ofRows(plan), weights, call.config);
    },
  }),
];

export const expertFaults: readonly Fault[] = [...BIASES, ...WEIGHTS, ...SIZES, ...WEIGHTED];
