/** Faults of the gradients of experts and x, in a layer whose forward is right. */
import {
  activations,
  combineBackward,
  type Gradients,
  linear,
  type Matrix,
  planOf,
  runExperts,
  runExpertsBackward,
  type Trace,
  type Weights,
} from 'xmoe';
import type { LayerCall } from 'xmoe/oracle';
import { ofOne, weightsChanged } from './changing.js';
import { type Fault, faultsOf, OURS, XMOE } from './fault.js';
import { honest, type Parts, type WithGradY } from './parts.js';
import { expertOfRow, isReal, mapped, mappedAll, noGradient, significant } from './tools.js';

const ofX = faultsOf(['grad.x', 'non-finite'], true);
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

export const gradientFaults: readonly Fault[] = [...EXPERTS, ...INPUT];
