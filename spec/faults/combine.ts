/** Faults of combine: the weighted sum of what the experts said. */
import { combine, type DispatchPlan, type Matrix, planOf } from 'xmoe';
import type { LayerCall } from 'xmoe/oracle';
import { type Fault, faultsOf, OURS, XMOE } from './fault.js';
import { honest, type Parts } from './parts.js';
import { expertOfRow, isReal, mapped, significant, sumOf } from './tools.js';

const ofCombine = faultsOf(['combine', 'non-finite']);

interface Term {
  readonly o: number;
  readonly w: number;
  readonly i: number;
  readonly token: number;
  readonly column: number;
  readonly expert: number;
  readonly plan: DispatchPlan;
  readonly call: LayerCall;
}

/** y as the sum of other terms than w·o, by other means than adding; `after` has the last word. */
function summing(
  term: (given: Term) => number,
  add: (sum: number, term: number) => number = (sum, v) => sum + v,
  after: (y: Matrix, plan: DispatchPlan, call: LayerCall) => Matrix = y => y,
): Partial<Parts> {
  return {
    combine(out, plan, call) {
      const y = mapped(call.x, () => 0);
      const expertOf = expertOfRow(plan);
      plan.tokenIndex.forEach((token, i) => {
        for (let column = 0; column < out.cols; column++) {
          const [o, w] = [out.data[i * out.cols + column], plan.combineWeight[i]];
          const at = token * out.cols + column;
          y.data[at] = add(y.data[at], term({ o, w, i, token, column, expert: expertOf[i], plan, call }));
        }
      });
      return after(y, plan, call);
    },
  };
}

const product = ({ o, w }: Term) => o * w;
const plus = (sum: number, v: number) => sum + v;

/** y, changed value by value. */
function changed(
  change: (y: number, given: { token: number; column: number; numKept: number; call: LayerCall }) => number,
): Partial<Parts> {
  return summing(product, plus, (y, plan, call) => {
    const numKept = new Int32Array(y.rows);
    for (const t of plan.tokenIndex) numKept[t]++;
    return mapped(y, (v, token, column) => change(v, { token, column, numKept: numKept[token], call }));
  });
}

/** The bias of the row's expert in this column. */
function downBias({ expert, column, call }: Term): number {
  const { downBias: bias, up } = call.weights;
  const e = expert - (call.config.numExperts + (call.config.skipExpert ? 1 : 0) - up.length);
  return bias && e >= 0 ? bias.data[e * bias.cols + column] : 0;
}

/** The plan in which every selected pair is kept. */
function withoutDrops(plan: DispatchPlan, call: LayerCall): DispatchPlan {
  const routing = honest.logits(call);
  const all = new Uint8Array(plan.selection.expertIndex.length).fill(1);
  return planOf(
    plan.selection,
    all,
    plan.capacity,
    { logits: routing, probs: honest.probs(routing, call) },
    call.config,
  );
}

export const combineFaults: readonly Fault[] = [
  ofCombine(
    'the output bias outside the weighting',
    XMOE,
    summing(given => given.w * (given.o - downBias(given)) + downBias(given)),
  ),
  ofCombine(
    'the weight applied twice',
    XMOE,
    summing(({ o, w }) => w * w * o),
  ),
  ofCombine(
    'the weight never applied',
    OURS,
    summing(({ o }) => o),
  ),
  ofCombine('dropped pairs contribute', XMOE, {
    combine(_, plan, call) {
      const all = withoutDrops(plan, call);
      return combine(honest.experts(all, call).out, all);
    },
  }),
  ofCombine(
    'a token that lost all of its experts keeps x',
    OURS,
    changed((y, { token, column, numKept, call }) =>
      numKept === 0 && isReal(call, token) ? call.x.data[token * call.x.cols + column] : y,
    ),
  ),
  ofCombine(
    'the residual is added here too',
    OURS,
    changed((y, { token, column, call }) => y + call.x.data[token * call.x.cols + column]),
  ),
  ofCombine(
    'y divided by the number of experts',
    OURS,
    changed((y, { numKept }) => (numKept > 1 ? y / numKept : y)),
  ),
  ofCombine(
    'the last expert overwrites the others',
    OURS,
    summing(product, (_, v) => v),
  ),
  ofCombine(
    'the largest in place of the sum',
    OURS,
    summing(product, (sum, v) => (Math.abs(v) > Math.abs(sum) ? v : sum)),
  ),
  ofCombine(
    'y summed in bf16',
    OURS,
    summing(product, (sum, v) => significant(8)(sum + v)),
  ),
  ofCombine(
    'y summed in f16',
    OURS,
    summing(product, (sum, v) => significant(11)(sum + v)),
  ),
  ofCombine('rows put back in order of position, not of token', 'applied-ai #25', {
    combine(out, plan, call) {
      const order = [...plan.tokenIndex].sort((a, b) => a - b);
      return honest.combine(out, { ...plan, tokenIndex: Int32Array.from(order) }, call);
    },
  }),
  ofCombine(
    '0 × Inf: rows that nobody filled are weighted with 0',
    'transformers #48205',
    (() => {
      const right = summing(product);
      return {
        combine(out, plan, call) {
          const y = right.combine!(out, plan, call);
          const isFull = plan.selection.expertIndex.length === plan.tokenIndex.length;
          return isFull || y.rows === 0 ? y : mapped(y, (v, t) => (t === 0 ? v + 0 * Number.POSITIVE_INFINITY : v));
        },
      } satisfies Partial<Parts>;
    })(),
  ),
  ofCombine(
    'padding gets the bias of expert 0',
    'Lvllm #110',
    changed((y, { token, column, call }) => (isReal(call, token) ? y : (call.weights.downBias?.data[column] ?? 0))),
  ),
  ofCombine(
    'padding gets x',
    'Lvllm #110',
    changed((y, { token, column, call }) => (isReal(call, token) ? y : call.x.data[token * call.x.cols + column])),
  ),
  ofCombine(
    'the tail of d is not written',
    'llama.cpp #16796',
    changed((y, { column, call }) => (call.x.cols > 4 && column >= call.x.cols - (call.x.cols % 4) ? 0 : y)),
  ),
  ofCombine(
    'tokens from 256 on are not written',
    'vLLM #45884',
    changed((y, { token }) => (token < 256 ? y : 0)),
  ),
  ofCombine('at most two experts are summed', OURS, () => {
    let [last, count] = [-1, 0];
    const seen = new Map<number, number>();
    return summing(({ o, w, i, token, column }) => {
      if (i !== last) {
        if (i === 0) seen.clear();
        count = (seen.get(token) ?? 0) + (column === 0 ? 1 : 0);
        seen.set(token, count);
        last = i;
      }
      return count <= 2 ? o * w : 0;
    });
  }),
  ofCombine(
    'what an expert of probability below 2^-10 says is left out',
    OURS,
    summing(({ o, w }) => (w < 2 ** -10 ? 0 : o * w)),
  ),
  ofCombine(
    'above 32 tokens another path, which does not weigh the first row',
    'sglang #27869',
    summing(({ o, w, i, call }) => (call.x.rows > 32 && i === 0 ? o : o * w)),
  ),
  ofCombine(
    'every output wrong by a thousandth',
    'tolerances such as 2e-2',
    changed(y => 1.001 * y),
  ),
  ofCombine(
    'y of a token is that of its neighbour',
    'applied-ai #25',
    summing(product, plus, y => (y.rows < 5 ? y : mapped(y, (_, t, c) => y.data[(t === 4 ? 3 : t) * y.cols + c]))),
  ),
  ofCombine(
    'a token’s own expert is added once more where there are three',
    'MetaX #270',
    (() => {
      const twice = changed((y, { numKept }) => (numKept === 3 ? y * 1.5 : y));
      return twice;
    })(),
  ),
  ofCombine('the skip expert gives x, weighted', OURS, {
    combine(out, plan, call) {
      const y = honest.combine(out, plan, call);
      if (!call.config.skipExpert) return y;
      const added = mapped(call.x, () => 0);
      for (let i = 0; i < plan.expertOffsets[1]; i++) {
        const t = plan.tokenIndex[i];
        for (let c = 0; c < added.cols; c++)
          added.data[t * added.cols + c] += plan.combineWeight[i] * call.x.data[t * added.cols + c];
      }
      return sumOf(y, added);
    },
  }),
];
