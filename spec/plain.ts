/**
 * The layer once more, as plain loops over every token and every expert, and how far apart two float64 evaluations of it
 * may be. It shares no code with the layer: not the sums, not the softmax, not the activations.
 */
import type { ActivationName, Config, DispatchPlan, Matrix, Weights } from 'xmoe';
import type { Layer } from 'xmoe/spec';
import { U } from './close.js';
import { realTokens, rowOf, total } from './tables.js';

/** A number, and the same sum of products with every term and factor in absolute value: what its rounding is relative to. */
export interface Scaled {
  readonly value: number;
  readonly scale: number;
}

/** Σ a·b + bias. */
export function sumOfProducts(a: readonly Scaled[], b: ArrayLike<number>, bias = 0): Scaled {
  let [value, scale] = [0, 0];
  for (let k = 0; k < a.length; k++) {
    value += a[k].value * b[k];
    scale += a[k].scale * Math.abs(b[k]);
  }
  return { value: value + bias, scale: scale + Math.abs(bias) };
}

export function scaled(values: ArrayLike<number>): Scaled[] {
  return Array.from(values, value => ({ value, scale: Math.abs(value) }));
}

/** Row i, not copied. */
function view({ cols, data }: Matrix, i: number): ArrayLike<number> {
  return data.subarray(i * cols, (i + 1) * cols);
}

/** The logits of one token. */
export function plainLogits({ x, weights }: Layer, token: number): Scaled[] {
  const given = scaled(rowOf(x, token));
  return Array.from({ length: weights.router.rows }, (_, e) => sumOfProducts(given, view(weights.router, e)));
}

/** The softmax by pairs: p_e = 1 / Σ_f e^(z_f − z_e). */
export function plainSoftmax(z: readonly number[]): number[] {
  return z.map(ze => 1 / total(z.map(zf => Math.exp(zf - ze))));
}

/** How far two float64 evaluations of a probability may be apart, relative to it, logits and all. */
export function probabilityError(logits: readonly Scaled[], dModel: number): number {
  const logitError = (2 * dModel + 2) * U * Math.max(0, ...logits.map(({ scale }) => scale));
  return Math.expm1(2 * logitError) + (2 * logits.length + 16) * U;
}

/** σ, each from its definition. */
const activation: Readonly<Record<ActivationName, (h: number) => number>> = {
  relu: h => Math.max(h, 0),
  gelu,
  gelu_tanh: h => (h / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (h + 0.044715 * h ** 3))),
  silu,
  swiglu: silu,
  geglu: gelu,
};

function silu(h: number): number {
  return h / (1 + Math.exp(-h));
}

function gelu(h: number): number {
  return (h / 2) * (1 + errorFunction(h / Math.SQRT2));
}

/** erf(x) = (2/√π) e^(−x²) Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1)), whose terms have one sign. */
function errorFunction(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let [term, sum] = [x, x];
  for (let n = 1; Math.abs(term) > Math.abs(sum) * 2 ** -60; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** W1 x + b1 and, with a gate, Wg x + bg, of a real expert. */
export function plainPreActivations(x: ArrayLike<number>, weights: Weights, expert: number) {
  const given = scaled(x);
  const project = (w: Matrix, biases: Matrix | undefined) =>
    Array.from({ length: w.rows }, (_, j) =>
      sumOfProducts(given, view(w, j), biases ? biases.data[expert * w.rows + j] : 0),
    );
  return {
    up: project(weights.up[expert], weights.upBias),
    gate: weights.gate && project(weights.gate[expert], weights.gateBias),
  };
}

/** After activation, and gate. |σ(h)| ≤ |h| for all of them. */
export function plainHidden(x: ArrayLike<number>, weights: Weights, expert: number, config: Config): Scaled[] {
  const { up, gate } = plainPreActivations(x, weights, expert);
  const apply = activation[config.activation];
  if (!gate) return up.map(({ value, scale }) => ({ value: apply(value), scale }));
  return up.map(({ value, scale }, j) => ({ value: value * apply(gate[j].value), scale: scale * gate[j].scale }));
}

/** What a real expert makes of one token, not yet weighted. */
export function plainExpert(x: ArrayLike<number>, weights: Weights, expert: number, config: Config): Scaled[] {
  const hidden = plainHidden(x, weights, expert, config);
  const down = weights.down[expert];
  return Array.from({ length: down.rows }, (_, c) =>
    sumOfProducts(hidden, view(down, c), weights.downBias ? weights.downBias.data[expert * down.rows + c] : 0),
  );
}

/** Two sums of n + 1 terms are apart by at most 2 (n + 1) u of their scale; a slope of σ is at most 1.13, σ itself is within 256 u. */
export function hiddenError({ up, gate }: Weights): number {
  const projection = 1.13 * (2 * up[0].cols + 4) * U + 512 * U;
  return (gate ? 2.1 : 1) * projection;
}

/** Of `plainExpert`, relative to its scale. */
export function expertError(weights: Weights): number {
  return hiddenError(weights) + (2 * weights.down[0].cols + 4) * U;
}

/** y and its scale by the definition: Σ over all experts of weight times output, the weight being 0 where nothing is kept. */
export function plainY(layer: Layer, isKept: (token: number, expert: number) => boolean): Scaled[][] {
  const { x, weights, config, inputs } = layer;
  const numSkip = config.skipExpert ? 1 : 0;
  const numColumns = config.numExperts + numSkip;
  const real = new Set(realTokens(x.rows, inputs));
  return Array.from({ length: x.rows }, (_, t) => {
    const given = rowOf(x, t);
    const weight = plainWeights(layer, t);
    const sums = Array.from({ length: x.cols }, () => ({ value: 0, scale: 0 }));
    for (let e = numSkip; e < numColumns; e++) {
      const w = real.has(t) && isKept(t, e) ? weight[e] : 0;
      if (w === 0) continue;
      plainExpert(given, weights, e - numSkip, config).forEach(({ value, scale }, c) => {
        sums[c].value += w * value;
        sums[c].scale += w * scale;
      });
    }
    return sums;
  });
}

/** Of `plainY`, relative to its scale, for one token. */
export function yError(layer: Layer, token: number): number {
  const { weights, config, x } = layer;
  const weightError = config.router === 'hash' ? 0 : probabilityError(plainLogits(layer, token), x.cols);
  return expertError(weights) + weightError + (2 * config.numExperts + 4) * U;
}

/** The combine weights of one token, for every expert: p, sigmoid(z) or 1. */
export function plainWeights(layer: Layer, token: number): number[] {
  const { router, numExperts, skipExpert } = layer.config;
  if (router === 'hash') return Array<number>(numExperts + (skipExpert ? 1 : 0)).fill(1);
  const z = plainLogits(layer, token).map(({ value }) => value);
  return router === 'base_eval' || router === 'base_train' ? z.map(v => 1 / (1 + Math.exp(-v))) : plainSoftmax(z);
}

/** Whether a plan has a row for each pair. */
export function keptIn({
  selection,
  expertOffsets,
  tokenIndex,
}: DispatchPlan): (token: number, expert: number) => boolean {
  const rows = new Set<number>();
  for (let e = 0; e < selection.numExperts; e++) {
    for (let i = expertOffsets[e]; i < expertOffsets[e + 1]; i++) rows.add(tokenIndex[i] * selection.numExperts + e);
  }
  return (token, expert) => rows.has(token * selection.numExperts + expert);
}
