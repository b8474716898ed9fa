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
  const numBefore = keys.rows - q.rows;
  const width = q.cols / numHeads;
  const probs = new Float64Array(keys.rows);
  for (let i = 0; i < q.rows; i++) {
    const visible = probs.subarray(0, numBefore + i + 1);
    for (let first = 0; first < q.cols; first += width) {
      attentionProbs(row(q, i), keys, first, width, visible);
      weightedSum(visible, values, first, width, row(y, i));
    }
  }
  return y;
}

/** probs[j] = softmax_j of ⟨q, keys[j]⟩ / √width, over columns `first` up to `first + width`. */
function attentionProbs(q: Floats, keys: Matrix, first: number, width: number, probs: Float64Array): void {
  const { data, cols } = keys;
  const scale = 1 / Math.sqrt(width);
  let max = Number.NEGATIVE_INFINITY;
  for (let j = 0; j < probs.length; j++) {
    let dot = 0;
    for (let c = first; c < first + width; c++) dot += q[c] * data[j * cols + c];
    probs[j] = dot * scale;
    max = Math.max(max, probs[j]);
  }
  let sum = 0;
  for (let j = 0; j < probs.length; j++) {
    probs[j] = Math.exp(probs[j] - max);
    sum += probs[j];
  }
  for (let j = 0; j < probs.length; j++) probs[j] /= sum;
}

/** y += Σ_j probs[j] · values[j], on columns `first` up to `first + width`. */
function weightedSum(probs: Float64Array, values: Matrix, first: number, width: number, y: Floats): void {
  const { data, cols } = values;
  for (let j = 0; j < probs.length; j++) {
    for (let c = first; c < first + width; c++) y[c] += probs[j] * data[j * cols + c];
  }
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
