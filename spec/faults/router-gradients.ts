/** Faults of the gradients that go through the router. */
import { combineBackward, dispatchBackward, planOf, routeBackward, routers, runExperts, sigmoid } from 'xmoe';
import { ofOne, weightsChanged } from './changing.js';
import { type Fault, faultsOf, OURS, XMOE } from './fault.js';
import { honest, type Parts } from './parts.js';
import { isReal, mapped, noGradient, significant } from './tools.js';

/** What reaches the router reaches x by way of it. */
const ofRouter = faultsOf(['grad.x', 'grad.router.weight', 'non-finite'], true);

/** Through the softmax by another rule: ∂z_e from p and ∂p of one token. */
function softmaxBackward(rule: (p: number, gradP: number, inner: number, sumGradP: number) => number): Partial<Parts> {
  return {
    routeBackward(gradRouting, trace, { x, weights }) {
      const { probs } = trace.routing;
      const ofProbs = mapped(probs, (p, t, e) => {
        const at = t * probs.cols;
        let [inner, sum] = [0, 0];
        for (let f = 0; f < probs.cols; f++) {
          inner += probs.data[at + f] * gradRouting.probs.data[at + f];
          sum += gradRouting.probs.data[at + f];
        }
        return rule(p, gradRouting.probs.data[at + e], inner, sum);
      });
      const direct = {
        logits: mapped(ofProbs, (v, t, e) => v + gradRouting.logits.data[t * probs.cols + e]),
        probs: noGradient(probs),
      };
      return routeBackward(direct, trace.routing, x, weights);
    },
  };
}

export const routerGradientFaults: readonly Fault[] = [
  ofRouter(
    'softmax backward without −Σ',
    OURS,
    softmaxBackward((p, gradP) => p * gradP),
  ),
  ofRouter(
    'softmax backward with the mean in place of ⟨p, ∂p⟩',
    OURS,
    softmaxBackward((p, gradP, _, sum) => p * (gradP - sum * p)),
  ),
  ofRouter(
    'softmax backward without p in front',
    OURS,
    softmaxBackward((_, gradP, inner) => gradP - inner),
  ),
  ofRouter('no gradient through the combine weight', OURS, {
    weightBackward: (_, { routing }) => ({ logits: noGradient(routing.logits), probs: noGradient(routing.probs) }),
  }),
  ofRouter('the gradient through the combine weight twice', OURS, {
    weightBackward: (gradWeight, trace, call) =>
      honest.weightBackward(
        gradWeight.map((g: number) => 2 * g),
        trace,
        call,
      ),
  }),
  ofRouter('no gradient of the load-balancing loss', XMOE, {
    lossBackward: ({ routing }) => noGradient(routing.probs),
  }),
  ofRouter('the gradient of the load-balancing loss twice', XMOE, {
    lossBackward: (trace, call) => mapped(honest.lossBackward(trace, call), g => 2 * g),
  }),
  ofRouter('the gradient of the load-balancing loss without E', OURS, {
    lossBackward: (trace, call) => mapped(honest.lossBackward(trace, call), g => g / trace.routing.probs.cols),
  }),
  ofRouter('the gradient of the load-balancing loss without α', OURS, {
    lossBackward: (trace, call) =>
      call.config.auxLossCoef
        ? honest.lossBackward(trace, { ...call, config: { ...call.config, auxLossCoef: 1 } })
        : honest.lossBackward(trace, call),
  }),
  ofRouter('the gradient of the load-balancing loss counts padding', 'marin #8953', {
    lossBackward(trace, call) {
      const { tokenMask: _, ...inputs } = call.inputs;
      return honest.lossBackward(trace, { ...call, inputs });
    },
  }),
  ofRouter('gradient through the counts, as if they were means of p', XMOE, {
    lossBackward(trace, call) {
      const { probs } = trace.routing;
      const { config } = call;
      const alpha = routers[config.router].balanced ? (config.auxLossCoef ?? 0) : 0;
      const real = Array.from({ length: probs.rows }, (_, t) => t).filter(t => isReal(call, t));
      const right = honest.lossBackward(trace, call);
      const meanOf = (e: number) => real.reduce((sum, t) => sum + probs.data[t * probs.cols + e], 0) / real.length;
      return mapped(right, (g, t, e) => (isReal(call, t) ? g + (alpha * probs.cols * meanOf(e)) / real.length : 0));
    },
  }),
  ofRouter('gradient through the selection, straight through it', XMOE, {
    weightBackward(gradWeight, trace, call) {
      const right = honest.weightBackward(gradWeight, trace, call);
      const { selection } = trace.plan;
      const chosen = new Uint8Array(right.probs.data.length);
      for (let t = 0; t < selection.numTokens; t++) {
        for (const e of selection.expertIndex.subarray(selection.tokenOffsets[t], selection.tokenOffsets[t + 1]))
          chosen[t * right.probs.cols + e] = 1;
      }
      const mean = [...gradWeight].reduce((sum, g) => sum + g, 0) / Math.max(1, gradWeight.length);
      return { ...right, probs: mapped(right.probs, (g, t, e) => (chosen[t * right.probs.cols + e] ? g : g + mean)) };
    },
  }),
  ofRouter('dropped pairs get gradients through their weight', XMOE, {
    weightBackward(gradWeight, trace, call) {
      const { plan, routing } = trace;
      const everything = planOf(
        plan.selection,
        new Uint8Array(plan.kept.length).fill(1),
        plan.capacity,
        routing,
        call.config,
      );
      const { out } = runExperts(call.x, everything, call.weights, call.config);
      if (everything.tokenIndex.length === plan.tokenIndex.length)
        return honest.weightBackward(gradWeight, trace, call);
      return dispatchBackward(combineBackward(call.gradY, out, everything).weight, everything, routing, call.config);
    },
  }),
  ofRouter('gradient through the renormalised weights', OURS, {
    weightBackward(gradWeight, trace, call) {
      const { plan } = trace;
      const mass = new Float64Array(call.x.rows);
      const inner = new Float64Array(call.x.rows);
      plan.tokenIndex.forEach((t, i) => {
        mass[t] += plan.combineWeight[i];
        inner[t] += plan.combineWeight[i] * gradWeight[i];
      });
      const changed = gradWeight.map((g: number, i: number) => {
        const t = plan.tokenIndex[i];
        return mass[t] > 0 ? (g - inner[t] / mass[t]) / mass[t] : g;
      });
      return honest.weightBackward(changed, trace, call);
    },
  }),
  ofRouter('BASE: the slope w(1 − w) is missing', OURS, {
    weightBackward(gradWeight, { plan, routing }, { config }) {
      const right = dispatchBackward(gradWeight, plan, routing, config);
      return {
        ...right,
        logits: mapped(
          right.logits,
          (g, t, e) => g / Math.max(1e-30, slope(routing.logits.data[t * right.logits.cols + e])),
        ),
      };
    },
  }),
  ofRouter('BASE: through the softmax', OURS, {
    weightBackward(gradWeight, { plan, routing }, { config }) {
      const isBase = config.router === 'base_eval' || config.router === 'base_train';
      return dispatchBackward(gradWeight, plan, routing, isBase ? { ...config, router: 'switch' } : config);
    },
  }),
  ofOne('grad.router.weight')(
    'no gradient for the router',
    OURS,
    weightsChanged(({ router }) => ({ router: noGradient(router) })),
  ),
  ofOne('grad.router.weight')(
    'the gradient for the router is a mean over tokens',
    OURS,
    weightsChanged(({ router }, _, { x }) => ({ router: mapped(router, g => g / Math.max(1, x.rows)) })),
  ),
  ofOne('grad.router.weight')(
    'the gradient for the router in bf16',
    OURS,
    weightsChanged(({ router }) => ({ router: mapped(router, significant(8)) })),
  ),
];

function slope(z: number): number {
  return sigmoid(z) * sigmoid(-z);
}
