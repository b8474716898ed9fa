/**
 * The layer once more, forward and backward, in arithmetic of one's own: what operands are rounded to, how products are
 * made and summed, what results are stored in. Honest backends in every format are made of it.
 */
import { activations, type ExpertRows, type Matrix, routers, type Weights } from 'xmoe';
import type { Parts } from './parts.js';
import { isReal, mapped, significant } from './tools.js';

export interface Numbers {
  /** What a number is rounded to before it is multiplied. */
  readonly operand: (value: number) => number;
  readonly product: (a: number, b: number) => number;
  readonly sum: (terms: readonly number[]) => number;
  readonly store: (value: number) => number;
}

type Sum = Numbers['sum'];

const f32 = Math.fround;

const forwards: Sum = terms => terms.reduce((sum, v) => f32(sum + v), 0);

/** Sums of float32 numbers, each in another order. */
export const sums = {
  forwards,
  backwards: terms => terms.reduceRight((sum, v) => f32(sum + v), 0),
  pairwise: terms => pairwise(terms),
  /** In eight lanes that are added at the end, as vectors do. */
  lanes: terms => forwards(Array.from({ length: 8 }, (_, lane) => forwards(terms.filter((_, i) => i % 8 === lane)))),
  /** In blocks of 16, each added to what there is. */
  blocks: terms =>
    forwards(
      Array.from({ length: Math.ceil(terms.length / 16) }, (_, b) => forwards(terms.slice(16 * b, 16 * b + 16))),
    ),
  /** Largest first. */
  sorted: terms => forwards([...terms].sort((a, b) => Math.abs(b) - Math.abs(a))),
  /** As tensor cores do: each addition cut off, not rounded. */
  truncated: terms => terms.reduce((sum, v) => towardsZero(sum + v), 0),
} satisfies Record<string, Sum>;

function pairwise(terms: readonly number[]): number {
  if (terms.length < 2) return terms[0] ?? 0;
  const middle = terms.length >> 1;
  return f32(pairwise(terms.slice(0, middle)) + pairwise(terms.slice(middle)));
}

function towardsZero(value: number): number {
  const near = f32(value);
  if (Math.abs(near) <= Math.abs(value)) return near;
  const bits = new Uint32Array(Float32Array.of(near).buffer);
  bits[0]--;
  return new Float32Array(bits.buffer)[0];
}

/** float32 throughout; `fused` rounds a product and its sum once. */
export function float32(sum: Sum, fused = false): Numbers {
  return { operand: f32, product: fused ? exactProduct : (a, b) => f32(a * b), sum, store: f32 };
}

/** Operands of few bits, products and sums in float32, and what is stored of as few bits or of float32. */
export function narrow(bits: number, sum: Sum, storesWide = false): Numbers {
  const round = (value: number) => f32(significant(bits)(value));
  return { operand: round, product: exactProduct, sum, store: storesWide ? f32 : round };
}

function exactProduct(a: number, b: number): number {
  return a * b;
}

/** rows × cols values, each the stored sum of `length` terms. */
function sumsOf(
  { sum, store }: Numbers,
  rows: number,
  cols: number,
  termsOf: (i: number, j: number) => number[],
): Matrix {
  return mapped({ rows, cols, data: new Float64Array(rows * cols) }, (_, i, j) => store(sum(termsOf(i, j))));
}

function times({ operand, product }: Numbers, a: number, b: number): number {
  return product(operand(a), operand(b));
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** x wᵀ + bias. */
function linearIn(numbers: Numbers, x: Matrix, w: Matrix, bias: ArrayLike<number> = []): Matrix {
  return sumsOf(numbers, x.rows, w.rows, (i, j) => {
    const terms = range(x.cols).map(l => times(numbers, x.data[i * x.cols + l], w.data[j * w.cols + l]));
    return bias.length > 0 ? [...terms, f32(bias[j])] : terms;
  });
}

/** a b. */
function timesIn(numbers: Numbers, a: Matrix, b: Matrix): Matrix {
  return sumsOf(numbers, a.rows, b.cols, (i, j) =>
    range(a.cols).map(l => times(numbers, a.data[i * a.cols + l], b.data[l * b.cols + j])),
  );
}

/** aᵀ b. */
function transposedTimesIn(numbers: Numbers, a: Matrix, b: Matrix): Matrix {
  return sumsOf(numbers, a.cols, b.cols, (i, j) =>
    range(a.rows).map(l => times(numbers, a.data[l * a.cols + i], b.data[l * b.cols + j])),
  );
}

function rowsAt(a: Matrix, index: readonly number[]): Matrix {
  return {
    rows: index.length,
    cols: a.cols,
    data: Float64Array.from(index.flatMap(i => [...a.data.subarray(i * a.cols, (i + 1) * a.cols)])),
  };
}

const rowAt = (a: Matrix | undefined, i: number) => a?.data.subarray(i * a.cols, (i + 1) * a.cols);

/** The router in `wide`, the experts in `own`. */
export function partsIn(wide: Numbers, own: Numbers = wide): Partial<Parts> {
  /** The rows of each real expert, and its tokens. */
  function* busy(plan: Parameters<Parts['experts']>[0], weights: Weights) {
    const numSkip = plan.selection.numExperts - weights.up.length;
    for (let e = 0; e < weights.up.length; e++) {
      const first = plan.expertOffsets[e + numSkip];
      const rows = range(plan.expertOffsets[e + numSkip + 1] - first).map(i => first + i);
      if (rows.length > 0) yield { e, rows, tokens: rows.map(i => plan.tokenIndex[i]) };
    }
  }

  function inner(given: Matrix, e: number, weights: Weights, activation: keyof typeof activations) {
    const { apply } = activations[activation];
    const up = linearIn(own, given, weights.up[e], rowAt(weights.upBias, e));
    const gate = weights.gate && linearIn(own, given, weights.gate[e], rowAt(weights.gateBias, e));
    const at = (i: number, j: number) => i * up.cols + j;
    const hidden = mapped(up, (u, i, j) => own.store(gate ? f32(f32(apply(gate.data[at(i, j)])) * u) : apply(u)));
    return { up, gate, hidden };
  }

  return {
    logits: ({ x, weights }) => linearIn(wide, x, weights.router),
    probs(logits) {
      const rows = range(logits.rows).map(t => {
        const z = [...logits.data.subarray(t * logits.cols, (t + 1) * logits.cols)];
        const max = Math.max(...z);
        const powers = z.map(v => wide.store(Math.exp(wide.store(v - max))));
        const total = wide.sum(powers);
        return powers.map(power => wide.store(power / total));
      });
      return { ...logits, data: Float64Array.from(rows.flat()) };
    },
    experts(plan, { x, weights, config }): ExpertRows {
      const numRows = plan.tokenIndex.length;
      const [hidden, out] = [weights.up[0].rows, x.cols].map(cols => ({
        rows: numRows,
        cols,
        data: new Float64Array(numRows * cols),
      }));
      for (const { e, rows, tokens } of busy(plan, weights)) {
        const activated = inner(rowsAt(x, tokens), e, weights, config.activation).hidden;
        hidden.data.set(activated.data, rows[0] * hidden.cols);
        out.data.set(linearIn(own, activated, weights.down[e], rowAt(weights.downBias, e)).data, rows[0] * out.cols);
      }
      return { hidden, out };
    },
    combine(out, plan, { x }) {
      const rowsOf = range(x.rows).map(t => range(plan.tokenIndex.length).filter(i => plan.tokenIndex[i] === t));
      return sumsOf(own, x.rows, x.cols, (t, c) =>
        rowsOf[t].map(i => own.product(plan.combineWeight[i], out.data[i * out.cols + c])),
      );
    },
    loss({ probs }, _, call) {
      if (!routers[call.config.router].balanced) return 0;
      const real = range(probs.rows).filter(t => isReal(call, t));
      if (real.length === 0) return 0;
      const best = real.map(t => {
        const p = probs.data.subarray(t * probs.cols, (t + 1) * probs.cols);
        return p.indexOf(Math.max(...p));
      });
      const terms = range(probs.cols).map(e => {
        const mean = wide.store(wide.sum(real.map(t => probs.data[t * probs.cols + e])) / real.length);
        return wide.product(mean, wide.store(best.filter(b => b === e).length / real.length));
      });
      return wide.store(probs.cols * wide.sum(terms));
    },
    combineBackward({ experts, plan }, { gradY }) {
      const { out } = experts;
      const at = (i: number, c: number) => gradY.data[plan.tokenIndex[i] * gradY.cols + c];
      return {
        out: mapped(out, (_, i, c) => own.store(plan.combineWeight[i] * at(i, c))),
        weight: Float64Array.from(plan.tokenIndex, (_, i) =>
          wide.store(wide.sum(range(out.cols).map(c => wide.product(at(i, c), out.data[i * out.cols + c])))),
        ),
      };
    },
    expertsBackward(gradOut, { plan }, { x, weights, config }) {
      const { derivative, apply } = activations[config.activation];
      const like = (a: Matrix) => mapped(a, () => 0);
      const { router: _, ...given } = weights;
      const grad = {
        up: given.up.map(like),
        down: given.down.map(like),
        ...(given.gate && { gate: given.gate.map(like) }),
        ...(given.upBias && { upBias: like(given.upBias) }),
        ...(given.gateBias && { gateBias: like(given.gateBias) }),
        ...(given.downBias && { downBias: like(given.downBias) }),
      };
      const biasInto = (into: Matrix | undefined, e: number, a: Matrix) =>
        rowAt(into, e)?.set(range(a.cols).map(j => own.store(own.sum(range(a.rows).map(i => a.data[i * a.cols + j])))));
      const toX: number[][][] = range(x.rows).map(() => range(x.cols).map(() => []));
      const intoX = (tokens: readonly number[], a: Matrix) =>
        tokens.forEach((t, i) => {
          for (let c = 0; c < a.cols; c++) toX[t][c].push(a.data[i * a.cols + c]);
        });
      for (const { e, rows, tokens } of busy(plan, weights)) {
        const given = rowsAt(x, tokens);
        const { up, gate, hidden } = inner(given, e, weights, config.activation);
        const g = rowsAt(gradOut, rows);
        grad.down[e] = transposedTimesIn(own, g, hidden);
        biasInto(grad.downBias, e, g);
        const gradHidden = timesIn(own, g, weights.down[e]);
        const h = (i: number, j: number) => gradHidden.data[i * up.cols + j];
        const gradUp = mapped(up, (u, i, j) =>
          own.store(h(i, j) * (gate ? f32(apply(gate.data[i * up.cols + j])) : f32(derivative(u)))),
        );
        grad.up[e] = transposedTimesIn(own, gradUp, given);
        biasInto(grad.upBias, e, gradUp);
        intoX(tokens, timesIn(own, gradUp, weights.up[e]));
        if (!gate || !grad.gate || !weights.gate) continue;
        const gradGate = mapped(gate, (v, i, j) =>
          own.store(f32(h(i, j) * up.data[i * up.cols + j]) * f32(derivative(v))),
        );
        grad.gate[e] = transposedTimesIn(own, gradGate, given);
        biasInto(grad.gateBias, e, gradGate);
        intoX(tokens, timesIn(own, gradGate, weights.gate[e]));
      }
      return { x: sumsOf(own, x.rows, x.cols, (t, c) => toX[t][c]), weights: grad };
    },
    routeBackward(gradRouting, { routing: { probs } }, { x, weights }) {
      const at = (t: number) => range(probs.cols).map(e => t * probs.cols + e);
      const inner = range(probs.rows).map(t =>
        wide.store(wide.sum(at(t).map(i => wide.product(probs.data[i], wide.store(gradRouting.probs.data[i]))))),
      );
      const gradLogits = mapped(probs, (p, t, e) => {
        const i = t * probs.cols + e;
        return wide.store(
          gradRouting.logits.data[i] + wide.product(p, wide.store(wide.store(gradRouting.probs.data[i]) - inner[t])),
        );
      });
      return { x: timesIn(wide, gradLogits, weights.router), router: transposedTimesIn(wide, gradLogits, x) };
    },
  };
}
