/** Faults of the gradients, in a layer whose forward is right. */
import {
  activations,
  combineBackward,
  dispatchBackward,
  type Gradients,
  linear,
  type Matrix,
  planOf,
  routeBackward,
  routers,
  runExperts,
  runExpertsBackward,
  sigmoid,
  type Trace,
  type Weights,
} from 'xmoe';
import type { LayerCall, StageName } from 'xmoe/oracle';
import { type Fault, faultsOf, OURS, XMOE } from './fault.js';
import { expertOfRow, honest, isReal, mapped, mappedAll, type Parts, significant, type WithGradY } from './parts.js';

const ofX = faultsOf(['grad.x', 'non-finite'], true);
/** What reaches the router reaches x by way of it. */
const ofRouter = faultsOf(['grad.x', 'grad.router.weight', 'non-finite'], true);
const ofExperts = faultsOf(
  [
    'grad.x',
    'grad.experts.up_proj',
    'grad.experts.up_proj_bias',
    'grad.experts.gate_proj',
    'grad.experts.gate_proj_bias',
    'grad.experts.down_proj',
    'non-finite',
  ],
  true,
);
const ofOne = (stage: StageName) => faultsOf([stage, 'non-finite'], true);

/** The right gradients but for some weights. */
function weightsChanged(change: (grad: Weights, trace: Trace, call: WithGradY) => Partial<Weights>): Partial<Parts> {
  return {
    gradients: (right, trace, call) => ({
      ...right,
      weights: { ...right.weights, ...change(right.weights, trace, call) },
    }),
  };
}

type Bias = 'upBias' | 'gateBias' | 'downBias';

const zeroBias = (key: Bias) => weightsChanged(grad => (grad[key] ? { [key]: mapped(grad[key], () => 0) } : {}));

function xChanged(change: (g: number, t: number, c: number, call: WithGradY, trace: Trace) => number): Partial<Parts> {
  return {
    gradients: (right, trace, call) => ({ ...right, x: mapped(right.x, (g, t, c) => change(g, t, c, call, trace)) }),
  };
}

const all = (gradients: Gradients, f: (v: number) => number): Gradients => {
  const { router, up, upBias, gate, gateBias, down, downBias } = gradients.weights;
  return {
    loss: gradients.loss,
    x: mapped(gradients.x, f),
    weights: {
      router: mapped(router, f),
      up: mappedAll(up, f),
      ...(upBias && { upBias: mapped(upBias, f) }),
      ...(gate && { gate: mappedAll(gate, f) }),
      ...(gateBias && { gateBias: mapped(gateBias, f) }),
      down: mappedAll(down, f),
      ...(downBias && { downBias: mapped(downBias, f) }),
    },
  };
};

const noGradient = (a: Matrix) => mapped(a, () => 0);

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

const ROUTER: readonly Fault[] = [
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

/** The experts' backward with another activation's derivative or other weights, the forward untouched. */
function expertsBy(
  change: (gradOut: Matrix, trace: Trace, call: WithGradY) => [Matrix, Trace, WithGradY],
): Partial<Parts> {
  return { expertsBackward: (...given) => honest.expertsBackward(...change(...given)) };
}

const withActivation = (from: LayerCall['config']['activation'], to: LayerCall['config']['activation']) =>
  expertsBy((gradOut, trace, call) => [
    gradOut,
    trace,
    call.config.activation === from ? { ...call, config: { ...call.config, activation: to } } : call,
  ]);

/** An up bias, there or not, moved by what no sum but 0 can feel. */
const liftedBias = ({ up, upBias }: Weights): Matrix =>
  mapped(upBias ?? { rows: up.length, cols: up[0].rows, data: new Float64Array(up.length * up[0].rows) }, b =>
    b === 0 ? 1e-300 : b,
  );

const EXPERTS: readonly Fault[] = [
  ofExperts('relu′(0) = 1', XMOE, {
    expertsBackward(gradOut, trace, call) {
      if (call.config.activation !== 'relu') return honest.expertsBackward(gradOut, trace, call);
      const lifted = { ...call, weights: { ...call.weights, upBias: liftedBias(call.weights) } };
      const { x, weights } = honest.expertsBackward(gradOut, trace, lifted);
      const { upBias, ...others } = weights;
      return { x, weights: { ...others, ...(call.weights.upBias && upBias && { upBias }) } };
    },
  }),
  ofExperts('the derivative of tanh GELU for erf GELU', XMOE, withActivation('gelu', 'gelu_tanh')),
  ofExperts('the derivative of silu for tanh GELU', OURS, withActivation('gelu_tanh', 'silu')),
  ofExperts('the derivative of relu for silu', OURS, withActivation('silu', 'relu')),
  ofExperts('geglu goes back through silu', OURS, withActivation('geglu', 'swiglu')),
  ofExperts('the gradient of an expert is not weighted', OURS, {
    combineBackward: (trace, call) => ({ ...honest.combineBackward(trace, call), out: unweighted(trace, call) }),
  }),
  ofExperts('the gradient of an expert is weighted twice', OURS, {
    combineBackward(trace, call) {
      const right = honest.combineBackward(trace, call);
      return { ...right, out: mapped(right.out, (g, i) => g * trace.plan.combineWeight[i]) };
    },
  }),
  ofExperts('dropped pairs get gradients through their experts', XMOE, {
    expertsBackward(gradOut, trace, call) {
      const { plan, routing } = trace;
      const everything = planOf(
        plan.selection,
        new Uint8Array(plan.kept.length).fill(1),
        plan.capacity,
        routing,
        call.config,
      );
      if (everything.tokenIndex.length === plan.tokenIndex.length) return honest.expertsBackward(gradOut, trace, call);
      const { out } = combineBackward(
        call.gradY,
        runExperts(call.x, everything, call.weights, call.config).out,
        everything,
      );
      return runExpertsBackward(out, call.x, everything, call.weights, call.config);
    },
  }),
  ofOne('grad.experts.up_proj')(
    'the up projections get the gradient in bf16',
    OURS,
    weightsChanged(({ up }) => ({ up: mappedAll(up, significant(8)) })),
  ),
  ofOne('grad.experts.up_proj')(
    'transposed gradients where they are square',
    'sglang #17172',
    weightsChanged(({ up }) =>
      up[0].rows === up[0].cols ? { up: up.map(a => mapped(a, (_, i, j) => a.data[j * a.cols + i])) } : {},
    ),
  ),
  ofOne('grad.experts.up_proj')(
    'an expert without tokens: garbage',
    'MSLK #158',
    weightsChanged(({ up }, trace) => ({ up: idleExperts(trace, up, () => 1e-3) })),
  ),
  ofOne('grad.experts.down_proj')(
    'an expert without tokens: NaN',
    'torchtitan #1166',
    weightsChanged(({ down }, trace) => ({ down: idleExperts(trace, down, () => Number.NaN) })),
  ),
  ofOne('grad.experts.down_proj')(
    'an expert without tokens gets its neighbour’s gradient',
    'llama.cpp #23695',
    weightsChanged(({ down }, trace) => ({
      down: idleExperts(trace, down, (e, at) => down[Math.max(0, e - 1)].data[at]),
    })),
  ),
  ofOne('grad.experts.up_proj')(
    'experts from 128 on get no gradient',
    'imp #2056',
    weightsChanged(({ up }) => ({ up: up.map((a, e) => (e < 128 ? a : noGradient(a))) })),
  ),
  ofOne('grad.experts.down_proj')(
    'the gradient of the down projection from what was before the activation',
    OURS,
    weightsChanged(({ down }, trace, call) => ({ down: downFromPre(down, trace, call) })),
  ),
  ofOne('grad.experts.gate_proj')(
    'no gradient for the gate',
    OURS,
    weightsChanged(({ gate }) => (gate ? { gate: gate.map(noGradient) } : {})),
  ),
  ofOne('grad.experts.gate_proj')(
    'the gate gets the gradient of up',
    OURS,
    weightsChanged(({ gate, up }) => (gate ? { gate: up } : {})),
  ),
  ofOne('grad.experts.up_proj_bias')('no gradient for the up bias', XMOE, zeroBias('upBias')),
  ofOne('grad.experts.gate_proj_bias')('no gradient for the gate bias', XMOE, zeroBias('gateBias')),
  ofOne('grad.experts.down_proj_bias')('no gradient for the down bias', XMOE, zeroBias('downBias')),
  ofOne('grad.experts.down_proj_bias')(
    'the gradient of the down bias outside the weighting',
    XMOE,
    weightsChanged(({ downBias }, { plan }, { gradY }) => {
      if (!downBias) return {};
      const numSkip = plan.selection.numExperts - downBias.rows;
      const expertOf = expertOfRow(plan);
      const sums = noGradient(downBias);
      plan.tokenIndex.forEach((t, i) => {
        const e = expertOf[i] - numSkip;
        if (e >= 0) for (let c = 0; c < sums.cols; c++) sums.data[e * sums.cols + c] += gradY.data[t * sums.cols + c];
      });
      return { downBias: sums };
    }),
  ),
];

/** ∂y of each row, without its weight. */
function unweighted({ plan }: Trace, { gradY }: WithGradY): Matrix {
  const blank = {
    rows: plan.tokenIndex.length,
    cols: gradY.cols,
    data: new Float64Array(plan.tokenIndex.length * gradY.cols),
  };
  return mapped(blank, (_, i, c) => gradY.data[plan.tokenIndex[i] * gradY.cols + c]);
}

function idleExperts({ plan }: Trace, list: readonly Matrix[], value: (e: number, at: number) => number): Matrix[] {
  const numSkip = plan.selection.numExperts - list.length;
  return list.map((a, e) => {
    const isIdle = plan.expertOffsets[e + numSkip] === plan.expertOffsets[e + numSkip + 1];
    return isIdle ? mapped(a, (_, i, j) => value(e, i * a.cols + j)) : a;
  });
}

/** ∂W2 as (w ∂y)ᵀ h with h before σ. */
function downFromPre(down: readonly Matrix[], { plan }: Trace, { x, weights, gradY, config }: WithGradY): Matrix[] {
  if (activations[config.activation].gated) return [...down];
  const numSkip = plan.selection.numExperts - down.length;
  return down.map((a, e) => {
    const sum = noGradient(a);
    for (let i = plan.expertOffsets[e + numSkip]; i < plan.expertOffsets[e + numSkip + 1]; i++) {
      const t = plan.tokenIndex[i];
      const given = { rows: 1, cols: x.cols, data: x.data.subarray(t * x.cols, (t + 1) * x.cols) };
      const bias = weights.upBias?.data.subarray(e * a.cols, (e + 1) * a.cols);
      const h = linear(given, weights.up[e], bias);
      for (let r = 0; r < a.rows; r++)
        for (let c = 0; c < a.cols; c++)
          sum.data[r * a.cols + c] += plan.combineWeight[i] * gradY.data[t * a.rows + r] * h.data[c];
    }
    return sum;
  });
}

const INPUT: readonly Fault[] = [
  ofX('x gets nothing by way of the router', OURS, {
    routeBackward: (...given) => ({ ...honest.routeBackward(...given), x: noGradient(given[2].x) }),
  }),
  ofX('x gets nothing by way of the experts', OURS, {
    expertsBackward: (...given) => ({ ...honest.expertsBackward(...given), x: noGradient(given[2].x) }),
  }),
  ofX('the gradient of x is that of its last expert alone', OURS, {
    expertsBackward(gradOut, trace, call) {
      const { plan } = trace;
      const lastRow = new Map(Array.from(plan.tokenIndex, (t, i) => [t, i]));
      const alone = mapped(gradOut, (g, i) => (lastRow.get(plan.tokenIndex[i]) === i ? g : 0));
      return { ...honest.expertsBackward(gradOut, trace, call), x: honest.expertsBackward(alone, trace, call).x };
    },
  }),
  ofX(
    'padding gets the residual’s gradient',
    OURS,
    xChanged((g, t, c, call) => (isReal(call, t) ? g : call.gradY.data[t * call.x.cols + c])),
  ),
  ofX(
    'a token that lost all of its experts gets gradY',
    OURS,
    xChanged((g, t, c, call, { plan }) =>
      isReal(call, t) && !plan.tokenIndex.includes(t) ? g + call.gradY.data[t * call.x.cols + c] : g,
    ),
  ),
  ofX(
    'tokens from 64 on get no gradient',
    OURS,
    xChanged((g, t) => (t < 64 ? g : 0)),
  ),
  ofX(
    'the tail of d gets no gradient',
    'llama.cpp #16796',
    xChanged((g, _, c, { x }) => (x.cols > 4 && c >= x.cols - (x.cols % 4) ? 0 : g)),
  ),
  ofX('gradients wrong by a thousandth', 'tolerances such as 2e-2', { gradients: right => all(right, g => 1.001 * g) }),
  ofX('gradients of a mean over tokens', OURS, {
    gradients: (right, _, { x }) => all(right, g => g / Math.max(1, x.rows)),
  }),
  faultsOf(['grad.x', 'not repeatable', 'non-finite'], true)(
    'gradients are not cleared between calls',
    'aiter #4528',
    () => {
      let before: Matrix | undefined;
      return {
        gradients(right) {
          const { x } = right;
          const sum = mapped(
            x,
            (g, t, c) =>
              g + (before && before.rows === x.rows && before.cols === x.cols ? before.data[t * x.cols + c] : 0),
          );
          before = sum;
          return { ...right, x: sum };
        },
      };
    },
  ),
];

export const gradientFaults: readonly Fault[] = [...ROUTER, ...EXPERTS, ...INPUT];
