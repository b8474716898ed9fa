/** Faults of logits and probabilities. */
import { linear, type Matrix, softmax, zeros } from 'xmoe';
import { type Fault, faultsOf, OURS } from './fault.js';
import type { Parts } from './parts.js';
import { mapped, significant } from './tools.js';

const ofLogits = faultsOf('logits');
const ofProbs = faultsOf(['probs', 'non-finite']);

const bf16 = significant(8);
const tf32 = significant(11);

/** Logits from another x and router than those given. */
function fromOther(x: (x: Matrix) => Matrix, router: (router: Matrix) => Matrix = w => w): Partial<Parts> {
  return { logits: call => linear(x(call.x), router(call.weights.router)) };
}

/** The same logits but for some of them. */
function changed(change: (z: number, t: number, e: number) => number): Partial<Parts> {
  return { logits: ({ x, weights }) => mapped(linear(x, weights.router), change) };
}

const same = (a: Matrix) => a;

/** The first `count(cols)` columns alone; zeros for the others. */
function firstColumns(count: (cols: number) => number): (a: Matrix) => Matrix {
  return a => mapped(a, (v, _, c) => (c < count(a.cols) ? v : 0));
}

/** Softmax row by row, in float32 where `exp` overflows at 88.7 already. */
function softmaxBy(
  shiftOf: (z: readonly number[], t: number) => number,
  exp: (v: number) => number = Math.exp,
  more = 0,
): Partial<Parts> {
  return {
    probs(logits) {
      const rows = Array.from({ length: logits.rows }, (_, t) => {
        const z = [...logits.data.subarray(t * logits.cols, (t + 1) * logits.cols)];
        const shift = shiftOf(z, t);
        const weights = z.map(v => Math.fround(exp(v - shift)));
        const sum = Math.fround(weights.reduce((a, b) => a + b, more));
        return weights.map(w => w / sum);
      });
      return { rows: logits.rows, cols: logits.cols, data: Float64Array.from(rows.flat()) };
    },
  };
}

export const routingFaults: readonly Fault[] = [
  ofLogits('logits rounded to bf16', 'flashinfer #2889', changed(bf16)),
  ofLogits(
    'the router runs in bf16 like the experts',
    'AstrAI #57',
    fromOther(
      x => mapped(x, bf16),
      w => mapped(w, bf16),
    ),
  ),
  ofLogits(
    'the router runs in tf32',
    OURS,
    fromOther(
      x => mapped(x, tf32),
      w => mapped(w, tf32),
    ),
  ),
  ofLogits(
    'a router that is square is read transposed',
    'sglang #17172',
    fromOther(same, w => (w.rows === w.cols ? mapped(w, (_, i, j) => w.data[j * w.cols + i]) : w)),
  ),
  ofLogits(
    'the tail of d, past the last whole vector of 4, is not read',
    'llama.cpp #16796',
    fromOther(firstColumns(d => (d < 4 ? d : d - (d % 4)))),
  ),
  ofLogits('right up to four vectors of 4, the fifth is not read', 'a SIMD library', fromOther(firstColumns(() => 16))),
  ofLogits(
    'the router has a bias',
    OURS,
    changed((z, _, e) => z + 0.01 * (e + 1)),
  ),
  ofLogits('logits divided by √d', OURS, {
    logits: ({ x, weights }) => mapped(linear(x, weights.router), z => z / Math.sqrt(x.cols)),
  }),
  ofLogits('x normalised before the router', 'larql #247', {
    logits({ x, weights }) {
      const scale = Array.from({ length: x.rows }, (_, t) => {
        const square = [...x.data.subarray(t * x.cols, (t + 1) * x.cols)].reduce((sum, v) => sum + v * v, 0);
        return 1 / Math.sqrt(square / x.cols + 1e-6);
      });
      return linear(
        mapped(x, (v, t) => v * scale[t]),
        weights.router,
      );
    },
  }),
  ofLogits('the noise of top-k is in the logits that are handed over', OURS, {
    logits: ({ x, weights, inputs }) =>
      mapped(linear(x, weights.router), (z, t, e) => z + (inputs.noise?.data[t * inputs.noise.cols + e] ?? 0)),
  }),
  ofLogits(
    'offsets into x wrap',
    'sglang #4727',
    fromOther(x => mapped(x, (_, t, c) => x.data[(t * x.cols + c) % 1024])),
  ),
  ofLogits(
    'a grid of 256 rows: the tokens past it have no logits',
    'flashinfer #2642',
    changed((z, t) => (t < 256 ? z : 0)),
  ),
  ofLogits('the last expert of an odd number has no logits', 'llama.cpp #16796', {
    logits: ({ x, weights: { router } }) =>
      mapped(linear(x, router), (z, _, e) => (e === router.rows - 1 && router.rows % 2 === 1 ? 0 : z)),
  }),
  ofLogits(
    'logits clamped to ±50',
    OURS,
    changed(z => Math.max(-50, Math.min(z, 50))),
  ),
  ofLogits('logits as E × T', 'applied-ai #25', {
    logits: ({ x, weights }) => ({ ...linear(weights.router, x), rows: x.rows, cols: weights.router.rows }),
  }),

  ofProbs('a temperature of 1.01', OURS, { probs: logits => softmax(mapped(logits, z => z / 1.01)) }),
  ofProbs('sigmoid for softmax', OURS, { probs: logits => mapped(logits, z => 1 / (1 + Math.exp(-z))) }),
  ofProbs('softmax over the tokens', 'megablocks #87', {
    probs(logits) {
      const transposed = mapped({ ...zeros(logits.cols, logits.rows) }, (_, e, t) => logits.data[t * logits.cols + e]);
      const p = softmax(transposed);
      return mapped(logits, (_, t, e) => p.data[e * p.cols + t]);
    },
  }),
  ofProbs('logits handed over as probabilities', 'megablocks #87', { probs: logits => logits }),
  ofProbs('probabilities rounded to bf16', 'AstrAI #57', { probs: logits => mapped(softmax(logits), bf16) }),
  ofProbs(
    'an epsilon of 1e-5 in the denominator',
    'sglang #35160',
    softmaxBy(z => Math.max(...z), Math.exp, 1e-5),
  ),
  ofProbs(
    'softmax without the maximum subtracted, in float32',
    'llama.cpp #27899',
    softmaxBy(() => 0),
  ),
  ofProbs(
    'the maximum starts at 0',
    'flashinfer #2822',
    softmaxBy(z => Math.max(0, ...z)),
  ),
  ofProbs('the maximum is not reset between tokens', 'aiter #4528', () => {
    let max = Number.NEGATIVE_INFINITY;
    return softmaxBy((z, t) => {
      max = Math.max(t === 0 ? Number.NEGATIVE_INFINITY : max, ...z);
      return max;
    });
  }),
  ofProbs('columns of padding, up to a multiple of 4, are zeros in the softmax', 'vLLM #37605', {
    probs(logits) {
      const cols = Math.ceil(logits.cols / 4) * 4;
      const padded = mapped(zeros(logits.rows, cols), (_, t, e) =>
        e < logits.cols ? logits.data[t * logits.cols + e] : 0,
      );
      const p = softmax(padded);
      return mapped(logits, (_, t, e) => p.data[t * cols + e]);
    },
  }),
  ofProbs('small probabilities are flushed to 0', OURS, {
    probs: logits => mapped(softmax(logits), p => (p < 2 ** -24 ? 0 : p)),
  }),
  ofProbs(
    'an exp that is right to 12 bits',
    OURS,
    softmaxBy(
      z => Math.max(...z),
      v => significant(12)(Math.exp(v)),
    ),
  ),
  ofProbs('the first 256 columns alone are summed', 'imp #2056', {
    probs(logits) {
      const first = { rows: logits.rows, cols: Math.min(256, logits.cols) };
      const p = softmax(mapped({ ...zeros(first.rows, first.cols) }, (_, t, e) => logits.data[t * logits.cols + e]));
      return mapped(logits, (_, t, e) => (e < first.cols ? p.data[t * first.cols + e] : 0));
    },
  }),
];
