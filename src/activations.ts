/** The activations σ of an expert and their derivatives, in float64. */
import { erf, erfcx, expOfSquare } from './erf.js';
import type { ActivationName } from './types.js';

/** σ and σ′ of one activation; `gated` when the expert multiplies σ(gate) with up. A finite h gives finite values. */
export interface Activation {
  readonly gated: boolean;
  apply(h: number): number;
  derivative(h: number): number;
}

/**
 * 1 / (1 + e^(−z)) = e^z / (1 + e^z): for z < 0 the second, as e^(−z) overflows from −710 on and the result is not 0
 * until −745. Error: at most 3 ulp.
 */
export function sigmoid(z: number): number {
  if (z >= 0) return 1 / (1 + Math.exp(-z));
  const e = Math.exp(z);
  return e / (1 + e);
}

/** max(h, 0), with σ′(0) = 0. */
const relu: Activation = {
  gated: false,
  apply: h => Math.max(h, 0),
  derivative: h => (h > 0 ? 1 : 0),
};

/**
 * h · sigmoid(h); σ′ = s + h s (1 − s), s = sigmoid(h).
 *
 * Error   where e^h is normal (h > −708): σ at most 4 ulp, σ′ at most 6 ulp of |s| + |h s (1 − s)|
 */
const silu: Activation = {
  gated: false,
  apply: h => h * sigmoid(h),
  derivative: h => {
    const s = sigmoid(h);
    return s + h * s * sigmoid(-h); // 1 − s = sigmoid(−h), which does not cancel
  },
};

const INV_SQRT_2PI = 1 / Math.sqrt(2 * Math.PI);

/**
 * ½h(1 + erf(h/√2)) = h Φ(h), Φ the normal distribution. σ′ = Φ(h) + h φ(h), φ(h) = e^(−h²/2)/√(2π).
 *
 * From −1 down 1 + erf would cancel: there Φ(h) = ½ erfcx(−h/√2) e^(−h²/2), and the exponential is multiplied last,
 * lest Φ underflow before h Φ does.
 *
 * Error   σ at most 5 ulp where it is normal; σ′ at most 7 ulp of |Φ| + |h φ| where e^(−h²/2) is normal (h > −37.6)
 * Source  D. Hendrycks and K. Gimpel, Gaussian Error Linear Units, arXiv 1606.08415
 */
const gelu: Activation = {
  gated: false,
  apply: h => {
    const x = h * Math.SQRT1_2;
    return h > -1 ? 0.5 * h * (1 + erf(x)) : 0.5 * h * erfcx(-x) * expOfSquare(-0.5, h);
  },
  derivative: h => {
    const x = h * Math.SQRT1_2;
    const bell = expOfSquare(-0.5, h);
    return h > -1 ? 0.5 * (1 + erf(x)) + h * INV_SQRT_2PI * bell : (0.5 * erfcx(-x) + h * INV_SQRT_2PI) * bell;
  },
};

const SQRT_2_OVER_PI = 0.7978845608028654;
const CUBIC = 0.044715;

function twoU(h: number): number {
  return 2 * SQRT_2_OVER_PI * (h + CUBIC * h * h * h);
}

/**
 * ½h(1 + tanh u), u = √(2/π) (h + 0.044715 h³), evaluated as h sigmoid(2u): the same, and nothing cancels for h < 0.
 * σ′ = s + h s (1 − s) 2u′ with s = sigmoid(2u).
 *
 * Error   where e^(2u) is normal (h > −21): σ at most 4 + 5 |2u| (1 − s) ulp, as 2u is rounded five times; σ′ at most
 *         2 ulp more, of |s| + |h s (1 − s) 2u′|
 */
const geluTanh: Activation = {
  gated: false,
  apply: h => h * sigmoid(twoU(h)),
  derivative: h => {
    const near = Math.max(-64, Math.min(h, 64)); // σ′ is 0 or 1 from here on, and h² overflows later
    const s = sigmoid(twoU(near));
    const twoUSlope = 2 * SQRT_2_OVER_PI * (1 + 3 * CUBIC * near * near);
    return s + near * s * sigmoid(-twoU(near)) * twoUSlope;
  },
};

/** By name. `swiglu` and `geglu` are `silu` and `gelu` of the gate. */
export const activations: Readonly<Record<ActivationName, Activation>> = {
  relu,
  gelu,
  gelu_tanh: geluTanh,
  silu,
  swiglu: { ...silu, gated: true },
  geglu: { ...gelu, gated: true },
};
