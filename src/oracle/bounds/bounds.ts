/** How far an honest implementation may be from the reference in a whole call, given equal decisions. */

import { zeros } from '../../matrix.js';
import { softmax } from '../../router.js';
import { routers } from '../../selection/routers.js';
import type { ActivationName, Floats, Matrix } from '../../types.js';
import { judgeOf } from '../judge/judge.js';
import { loadBalancingApprox, trainingApprox } from '../judge/judge-loss.js';
import type { LayerCall } from '../types.js';
import { type Approximate, exactly, given, linearApprox } from './approximate.js';
import type { Arithmetic } from './arithmetic.js';
import { combineApprox, weightsApprox } from './combine-approx.js';
import { expertsApprox, planOfKept } from './forward-approx.js';
import { activationApprox, sigmoidApprox, slopeApprox, softmaxApprox } from './functions.js';
import { gradientsApprox } from './gradients-approx.js';
import { type Certainty, expertRounding, routerRounding } from './rounding.js';

/** The reference's value of each output by its name in a layer case, and the bounds on the difference to it. */
export type Bounds = ReadonlyMap<string, Approximate>;

/**
 * Running error bounds from the magnitudes of this very call, carried from x to every output; gradients too, where the
 * call has a cotangent.
 *
 * Shapes  kept: 1 where a pair is kept, [T, E]; each bound as its output
 */
export function errorBounds(call: LayerCall, kept: Uint8Array, arithmetic: Arithmetic): Bounds {
  const judge = judgeOf(call, arithmetic, { tensors: new Map(), findings: [], misshapen: new Map() });
  const { router, experts: rounding } = judge;
  const { x, weights, config, inputs, gradY } = call;
  const bounds = new Map<string, Approximate>();
  let compared = { logits: exactly(zeros(x.rows, 0)), probs: exactly(zeros(x.rows, 0)) };
  if (config.router !== 'hash') {
    const logits = linearApprox(given(x, router), weights.router, undefined, router);
    compared = { logits, probs: softmaxApprox(logits, softmax(logits.value), router) };
    bounds.set('logits', logits).set('probs', compared.probs);
  }
  const routing = { logits: compared.logits.value, probs: compared.probs.value };
  const plan = planOfKept(kept, x.rows, routing, config);
  const forward = expertsApprox(x, plan, weights, config, rounding);
  const combine = weightsApprox(kept, compared, config, router, rounding);
  const y = combineApprox(forward.out, combine, plan, kept, rounding);
  const balancing = routers[config.router].balanced
    ? loadBalancingApprox(compared.probs, inputs.tokenMask, router, undefined).approximate
    : exactly({ rows: 1, cols: 1, data: Float64Array.of(0) });
  bounds.set('combine', combine).set('expert_out', forward.out).set('y', y).set('load_balancing_loss', balancing);
  if (!gradY) return bounds;
  bounds.set('loss', trainingApprox(y, gradY, balancing, config.auxLossCoef ?? 0, rounding));
  for (const [name, gradient] of gradientsApprox(judge, compared, plan, forward, combine)) bounds.set(name, gradient);
  return bounds;
}

/** The bounds of single operations in an arithmetic, for tests of kernels. `error` is that of every element of h. */
export interface Operations {
  given(x: Matrix): Approximate;
  linear(x: Matrix, w: Matrix, bias?: Floats): Approximate;
  activation(h: Matrix, name: ActivationName, error?: number): Approximate;
  slope(h: Matrix, name: ActivationName, error?: number): Approximate;
  softmax(z: Matrix): Approximate;
  sigmoid(z: Matrix): Approximate;
}

/** What each operation of the layer may be off by, by itself: the experts' products and activations, the router's softmax. */
export function approximately(arithmetic: Arithmetic, certainty: Certainty = 'always'): Operations {
  const [router, experts] = [routerRounding(arithmetic, certainty), expertRounding(arithmetic, certainty)];
  const within = (h: Matrix, error: number) => ({ value: h, error: new Float64Array(h.data.length).fill(error) });
  return {
    given: x => given(x, experts),
    linear: (x, w, bias) => linearApprox(given(x, experts), w, bias, experts),
    activation: (h, name, error = 0) => activationApprox(within(h, error), name, experts),
    slope: (h, name, error = 0) => slopeApprox(within(h, error), name, experts),
    softmax: z => softmaxApprox(exactly(z), softmax(z), router),
    sigmoid: z => sigmoidApprox(exactly(z), router),
  };
}
