/** Faults of the activations: what stands between the two projections of an expert. */
import { activations, erf, type Matrix, sigmoid } from 'xmoe';
import type { LayerCall } from 'xmoe/oracle';
import { type Fault, faultsOf, OURS, XMOE } from './fault.js';
import { honest, type Parts } from './parts.js';
import { linearRows, mapped, ofRows, significant } from './tools.js';

const ofExperts = faultsOf(['experts', 'non-finite']);

interface Inner {
  /** σ, of h. */
  readonly apply: (h: number) => number;
  readonly up: number;
  readonly gate: number | undefined;
  readonly call: LayerCall;
}

/** Experts written out, with another inner function; `own` is which activations it concerns. */
export function withInner(
  own: readonly LayerCall['config']['activation'][] | 'any',
  inner: (given: Inner) => number,
): Partial<Parts> {
  return {
    experts(plan, call) {
      const { config, weights, x } = call;
      if (own !== 'any' && !own.includes(config.activation)) return honest.experts(plan, call);
      const { apply } = activations[config.activation];
      const linearOf = (list: readonly Matrix[], bias: Matrix | undefined) => linearRows(plan, x, list, bias);
      const up = linearOf(weights.up, weights.upBias);
      const gate = weights.gate && linearOf(weights.gate, weights.gateBias);
      const hidden = mapped(up, (value, i, j) => inner({ apply, up: value, gate: gate?.data[i * up.cols + j], call }));
      return {
        hidden,
        out: linearRows(ofRows(plan), hidden, weights.down, weights.downBias),
      };
    },
  };
}

const gated = ['swiglu', 'geglu'] as const;
const tanhGelu = (constant: number) => (h: number) => h * sigmoid(2 * constant * (h + 0.044715 * h ** 3));

export const activationFaults: readonly Fault[] = [
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
