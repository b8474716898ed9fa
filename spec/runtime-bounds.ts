/**
 * How far a float32 run of the language model may be from the reference, half a layer at a time, each judged on its own
 * input: a running error analysis from the magnitudes of this very run, element by element. Products, activations and
 * softmaxes are the oracle's (src/oracle/bounds); LayerNorm and attention are added here.
 *
 * Not through the whole model: a bound grows by the sums of magnitudes at each product, and past the first layer or two it
 * says nothing, while what errors really grow by is little (0.00003 on logits of 20 at the end of the shipped model).
 *
 * Routing is a step function. So bounds are those of given decisions, and whether these can be right is said besides.
 */
import { type Config, type Floats, type Matrix, softmax, type Weights } from 'xmoe';
import { type Attention, type LayerNorm, type Linear, layerNorm, type Model } from 'xmoe/model';
import {
  type Approximate,
  activationApprox,
  arithmeticNamed,
  choiceOf,
  combineApprox,
  EITHER,
  exactly,
  expertRounding,
  IN,
  linearApprox,
  planOfKept,
  productApprox,
  routerRounding,
  softmaxApprox,
  weightsApprox,
} from './internals.js';

const arithmetic = arithmeticNamed('f32');
const rounding = expertRounding(arithmetic);
const router = routerRounding(arithmetic);
/** A rounding to float32, and one of the reference's. */
const U = 2 ** -24 + 2 ** -53;

/** For each token the experts that kept it. */
export type Kept = readonly (readonly number[])[];

/** x after the attention of layer `l`, given the x before it: [n, d]. */
export function afterAttention({ config, layers }: Model, l: number, x: Matrix): Approximate {
  const { attentionNorm, attention } = layers[l];
  const normed = normApprox(exactly(x), attentionNorm, config.layerNormEps);
  return sumApprox(exactly(x), attentionApprox(normed, attention, config.numHeads));
}

/**
 * x after the FFN of layer `l`, given the x before it.
 *
 * @param kept of a layer with experts
 * @returns with it, why an expert that was chosen, or left out, cannot be: undefined where all choices can
 */
export function afterFfn(
  { config, layers }: Model,
  l: number,
  x: Matrix,
  layer: Config,
  kept: Kept,
): Approximate & { readonly fault: string | undefined } {
  const { ffnNorm, ffn } = layers[l];
  const normed = normApprox(exactly(x), ffnNorm, config.layerNormEps);
  const { y, fault } =
    ffn.kind === 'moe'
      ? moeApprox(normed, ffn.moe, layer, kept)
      : { y: ffnApprox(normed, ffn.dense.up, ffn.dense.gate, ffn.dense.down, layer), fault: undefined };
  return { ...sumApprox(exactly(x), y), fault };
}

/** Logits [n, 256], given the x at the end. */
export function logitsApprox({ config, finalNorm, embedTokens }: Model, x: Matrix): Approximate {
  return linearApprox(normApprox(exactly(x), finalNorm, config.layerNormEps), embedTokens, undefined, rounding);
}

/** a + b, rounded. */
function sumApprox(a: Approximate, b: Approximate): Approximate {
  const data = new Float64Array(a.error.length);
  const error = new Float64Array(a.error.length);
  for (let i = 0; i < data.length; i++) {
    data[i] = a.value.data[i] + b.value.data[i];
    const carried = a.error[i] + b.error[i];
    error[i] = carried + U * (Math.abs(data[i]) + carried);
  }
  return { value: { ...a.value, data }, error };
}

/**
 * LayerNorm. With |x' − x| ≤ δ, centred values differ by at most γ = δ + mean δ, and √(variance + eps), a norm of them, by at
 * most ρ = √(mean γ²). So (x' − mean') / σ' differs by at most (γ + |normalised| ρ) / σ', σ' at least σ − ρ and √eps. To that
 * come the kernel's own roundings: two of the product with the weight, one of the result; its float64 sums are nothing beside.
 */
function normApprox(x: Approximate, norm: LayerNorm, eps: number): Approximate {
  const { rows: n, cols: d } = x.value;
  const value = layerNorm(x.value, norm, eps);
  const error = new Float64Array(n * d);
  for (let i = 0; i < n; i++) {
    const [values, errors] = [x.value.data, x.error].map(all => Array.from(all.subarray(i * d, (i + 1) * d)));
    const [mean, meanError] = [values, errors].map(all => all.reduce((sum, v) => sum + v, 0) / d);
    const sigma = Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / d + eps);
    const rho = Math.sqrt(errors.reduce((sum, e) => sum + (e + meanError) ** 2, 0) / d);
    const least = Math.max(sigma - rho, Math.sqrt(eps));
    for (let c = 0; c < d; c++) {
      const size = Math.abs(values[c] - mean) / sigma;
      const carried = (errors[c] + meanError + size * rho) / least;
      const ofNormalised = carried + 2.1 * U * (size + carried);
      const [w, y] = [Math.abs(norm.weight[c]), Math.abs(value.data[i * d + c])];
      error[i * d + c] = w * ofNormalised + U * (y + w * ofNormalised) + 2 ** -148;
    }
  }
  return { value, error };
}

function lineared(x: Approximate, { weight, bias }: Linear): Approximate {
  return linearApprox(x, weight, bias, rounding);
}

function ffnApprox(x: Approximate, up: Linear, gate: Linear | undefined, down: Linear, layer: Config): Approximate {
  const [projected, gated] = [lineared(x, up), gate && lineared(x, gate)];
  const activated = activationApprox(gated ?? projected, layer.activation, rounding);
  return lineared(gated ? productApprox(activated, projected, rounding) : activated, down);
}

/** Causal attention: see `attendBound` in model-bounds.ts, whose exponents here have errors of q and k besides. */
function attentionApprox(x: Approximate, { q, k, v, o }: Attention, numHeads: number): Approximate {
  const [queries, keys, values] = [q, k, v].map(linear => lineared(x, linear));
  const { rows: n, cols: d } = x.value;
  const width = d / numHeads;
  const y: Approximate = exactly({ rows: n, cols: d, data: new Float64Array(n * d) });
  for (let i = 0; i < n; i++) {
    for (let first = 0; first < d; first += width) {
      const exponents: number[] = [];
      const sizes: number[] = []; // of the products' errors
      for (let j = 0; j <= i; j++) {
        let [product, error] = [0, 0];
        for (let c = first; c < first + width; c++) {
          const [a, da] = [queries.value.data[i * d + c], queries.error[i * d + c]];
          const [b, db] = [keys.value.data[j * d + c], keys.error[j * d + c]];
          const carried = Math.abs(a) * db + Math.abs(b) * da + da * db;
          product += a * b;
          error += carried + (width + 2) * U * (Math.abs(a * b) + carried) + 2 ** -120;
        }
        exponents.push(product / Math.sqrt(width));
        sizes.push(error / Math.sqrt(width));
      }
      const largest = Math.max(...exponents);
      const eta = exponents.map((z, j) => 1.01 * sizes[j] + 3.2 * U * (largest - z + 2 * sizes[j]));
      const weights = exponents.map(z => Math.exp(z - largest));
      const sum = weights.reduce((a, b) => a + b);
      const ofSum = Math.log(weights.reduce((all, w, j) => all + (w / sum) * Math.exp(eta[j]), 0)) + (i + 10) * U;
      for (let c = first; c < first + width; c++) {
        let [total, error, most] = [0, 0, 0];
        for (let j = 0; j <= i; j++) {
          const [p, value, dv] = [weights[j] / sum, values.value.data[j * d + c], values.error[j * d + c]];
          const grown = Math.min(1, p * Math.exp(eta[j] + ofSum) * (1 + 7 * U));
          total += p * value;
          error +=
            (grown - p) * Math.abs(value) + grown * dv + (i + 4) * U * grown * (Math.abs(value) + dv) + 2 ** -140;
          most = Math.max(most, Math.abs(value) + dv);
        }
        y.value.data[i * d + c] = total;
        y.error[i * d + c] = Math.min(error, 2.02 * most); // a mean of values, whatever the weights
      }
    }
  }
  return lineared(y, o);
}

function moeApprox(x: Approximate, weights: Weights, config: Config, kept: Kept) {
  const { rows: n, cols: d } = x.value;
  const logits = linearApprox(x, weights.router, undefined, router);
  const numExperts = logits.value.cols;
  const probs = softmaxApprox(logits, softmax(logits.value), router);
  const flags = new Uint8Array(n * numExperts);
  kept.forEach((experts, t) => {
    for (const e of experts) flags[t * numExperts + e] = 1;
  });
  const plan = planOfKept(flags, n, { logits: logits.value, probs: probs.value }, config);
  const out = exactly({ rows: plan.tokenIndex.length, cols: d, data: new Float64Array(plan.tokenIndex.length * d) });
  const numSkip = numExperts - weights.up.length;
  weights.up.forEach((up, e) => {
    const [first, end] = [plan.expertOffsets[e + numSkip], plan.expertOffsets[e + numSkip + 1]];
    if (first === end) return;
    const tokens = plan.tokenIndex.subarray(first, end);
    const rowOf = (a: Matrix | undefined) => a?.data.subarray(e * a.cols, (e + 1) * a.cols);
    const linearOf = (weight: Matrix, biases: Matrix | undefined): Linear => ({
      weight,
      bias: rowOf(biases) ?? new Float64Array(weight.rows),
    });
    const rows = ffnApprox(
      {
        value: { rows: tokens.length, cols: d, data: gathered(x.value.data, tokens, d) },
        error: gathered(x.error, tokens, d),
      },
      linearOf(up, weights.upBias),
      weights.gate && linearOf(weights.gate[e], weights.gateBias),
      linearOf(weights.down[e], weights.downBias),
      config,
    );
    out.value.data.set(rows.value.data, first * d);
    out.error.set(rows.error, first * d);
  });
  const combine = weightsApprox(flags, { logits, probs }, config, router, rounding);
  const fault = faultOf(kept, numExperts, { logits, probs }, config);
  return { fault, y: combineApprox(out, combine, plan, flags, rounding) };
}

/** Rules D1-D10 on probabilities that are known to within an error; where nothing is dropped, what is kept is what was chosen. */
function faultOf(
  kept: Kept,
  numExperts: number,
  compared: { logits: Approximate; probs: Approximate },
  config: Config,
): string | undefined {
  if (config.capacityFactor !== null) return undefined;
  for (const [t, chosen] of kept.entries()) {
    const choice = choiceOf(t, numExperts, compared, {}, config, router);
    const wrong = choice.status.findIndex((status, e) => status !== EITHER && (status === IN) !== chosen.includes(e));
    if (wrong >= 0) return `token ${t}: expert ${wrong} ${chosen.includes(wrong) ? 'was' : 'was not'} chosen`;
    const fault = choice.fault(chosen);
    if (fault !== undefined) return `token ${t}: ${fault}`;
  }
  return undefined;
}

function gathered(data: Floats, rows: Int32Array, cols: number): Float64Array {
  const copy = new Float64Array(rows.length * cols);
  rows.forEach((from, i) => {
    copy.set(data.subarray(from * cols, (from + 1) * cols), i * cols);
  });
  return copy;
}
