/** The layers around XMoE, float64: layer norm, causal attention, the dense FFN. */
import { activations } from '../activations.js';
import { linear } from '../linear.js';
import { row, zeros } from '../matrix.js';
import type { ActivationName, Floats, Matrix } from '../types.js';
import type { DenseFfn, LayerNorm, Linear } from './types.js';

/** y = x wᵀ + bias. */
export function applyLinear({ weight, bias }: Linear, x: Matrix): Matrix {
  return linear(x, weight, bias);
}

/**
 * Each row to mean 0 and variance 1, then scaled and shifted.
 *
 * Maths   y = (x − mean(x)) / √(var(x) + eps) ⊙ weight + bias; var is the population variance
 * Shapes  x [n, d] -> y [n, d]
 */
export function layerNorm(x: Matrix, { weight, bias }: LayerNorm, eps: number): Matrix {
  const y = zeros(x.rows, x.cols);
  for (let i = 0; i < x.rows; i++) normalise(row(x, i), row(y, i), weight, bias, eps);
  return y;
}

function normalise(x: Floats, y: Floats, weight: Floats, bias: Floats, eps: number): void {
  const d = x.length;
  let sum = 0;
  for (let c = 0; c < d; c++) sum += x[c];
  const mean = sum / d;
  let squares = 0;
  for (let c = 0; c < d; c++) squares += (x[c] - mean) * (x[c] - mean);
  const scale = 1 / Math.sqrt(squares / d + eps);
  for (let c = 0; c < d; c++) y[c] = (x[c] - mean) * scale * weight[c] + bias[c];
}

/**
 * Causal multi-head attention of the newest n of `keys.rows` tokens; token i sees itself and every token before it.
 *
 * Maths   head h: p = softmax over j <= i of ⟨q[i], k[j]⟩ / √(d / numHeads);  y[i] = Σ_j p[j] v[j], on the head's columns
 * Shapes  q [n, d], keys and values [n before and with these, d] -> y [n, d]
 * Order   every sum is one float64 sum in order of column or of j: a token's y does not depend on how many run with it
 */
export function attend(q: Matrix, keys: Matrix, values: Matrix, numHeads: number): Matrix {
  const y = zeros(q.rows, q.cols);
  const width = q.cols / numHeads;
  for (let first = 0; first < q.cols; first += width) {
    const probs = linear(columns(q, first, width), columns(keys, first, width));
    for (let i = 0; i < q.rows; i++) causalSoftmax(row(probs, i), keys.rows - q.rows + i + 1, 1 / Math.sqrt(width));
    const head = linear(probs, transposed(columns(values, first, width)));
    for (let i = 0; i < q.rows; i++) row(y, i).set(row(head, i), first);
  }
  return y;
}

/** In place: the first `numVisible` scores become their softmax, scaled; the rest, tokens yet to come, 0. */
function causalSoftmax(scores: Floats, numVisible: number, scale: number): void {
  let max = Number.NEGATIVE_INFINITY;
  for (let j = 0; j < numVisible; j++) max = Math.max(max, scores[j] * scale);
  let sum = 0;
  for (let j = 0; j < numVisible; j++) {
    scores[j] = Math.exp(scores[j] * scale - max);
    sum += scores[j];
  }
  for (let j = 0; j < numVisible; j++) scores[j] /= sum;
  scores.fill(0, numVisible);
}

/** Columns `first` up to `first + width`, copied. */
function columns(a: Matrix, first: number, width: number): Matrix {
  const copy = zeros(a.rows, width);
  for (let i = 0; i < a.rows; i++) row(copy, i).set(row(a, i).subarray(first, first + width));
  return copy;
}

function transposed(a: Matrix): Matrix {
  const copy = zeros(a.cols, a.rows);
  for (let i = 0; i < a.rows; i++) for (let j = 0; j < a.cols; j++) copy.data[j * a.rows + i] = a.data[i * a.cols + j];
  return copy;
}

/** The FFN of a layer without experts, gated when it has a gate. Shapes x [n, d] -> y [n, d]. */
export function denseFfn(x: Matrix, { up, gate, down }: DenseFfn, activation: ActivationName): Matrix {
  const sigma = activations[activation].apply;
  const hidden = applyLinear(up, x);
  const gated = gate && applyLinear(gate, x);
  for (let i = 0; i < hidden.data.length; i++) {
    hidden.data[i] = gated ? sigma(gated.data[i]) * hidden.data[i] : sigma(hidden.data[i]);
  }
  return applyLinear(down, hidden);
}
