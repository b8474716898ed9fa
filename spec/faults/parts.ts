/**
 * A right layer in parts, each of which a fault may replace. The parts are the reference's functions; what they hand over
 * is rounded to float32, as an honest f32 backend rounds it.
 */
import {
  backward,
  capacityOf,
  combine,
  combineBackward,
  type DispatchPlan,
  dispatchBackward,
  type ExpertRows,
  type Floats,
  type Gradients,
  linear,
  loadBalancingLoss,
  loadBalancingLossBackward,
  type Matrix,
  planOf,
  type Routing,
  routeBackward,
  routers,
  runExperts,
  runExpertsBackward,
  type Selection,
  softmax,
  statisticsOf,
  type Trace,
  type Weights,
} from 'xmoe';
import { outputTensors } from 'xmoe/layer-case';
import { arithmeticNamed, type Implementation, type LayerCall, type Outputs } from 'xmoe/oracle';
import { mapped, pairsOf, sumOf } from './tools.js';

/** A token that wants an expert. */
export interface Candidate {
  /** Its place in `selection.expertIndex`. */
  readonly pair: number;
  readonly token: number;
  readonly rank: number;
  readonly prob: number;
}

export interface Parts {
  logits(call: LayerCall): Matrix;
  probs(logits: Matrix, call: LayerCall): Matrix;
  select(routing: Routing, call: LayerCall): Selection;
  /** C; infinite where nothing is dropped. */
  capacity(call: LayerCall, selection: Selection): number;
  /** Who comes first: negative where a does. */
  priority(a: Candidate, b: Candidate, routing: Routing): number;
  /** One flag for each pair, from each expert's tokens in order of priority. */
  keep(queues: readonly Candidate[][], capacity: number, call: LayerCall, selection: Selection): Uint8Array;
  /** The combine weight of each row of the plan, which has the right ones. */
  weigh(plan: DispatchPlan, routing: Routing, call: LayerCall): Floats;
  experts(plan: DispatchPlan, call: LayerCall): ExpertRows;
  combine(out: Matrix, plan: DispatchPlan, call: LayerCall): Matrix;
  loss(routing: Routing, plan: DispatchPlan, call: LayerCall): number;
  combineBackward(trace: Trace, call: WithGradY): { out: Matrix; weight: Floats };
  /** For logits and probs, from the combine weights. */
  weightBackward(gradWeight: Floats, trace: Trace, call: WithGradY): Routing;
  /** For probs, α included. */
  lossBackward(trace: Trace, call: WithGradY): Matrix;
  expertsBackward(gradOut: Matrix, trace: Trace, call: WithGradY): { x: Matrix; weights: Omit<Weights, 'router'> };
  routeBackward(gradRouting: Routing, trace: Trace, call: WithGradY): { x: Matrix; router: Matrix };
  gradients(right: Gradients, trace: Trace, call: WithGradY): Gradients;
  /** The last word on what is handed over. */
  outputs(outputs: Outputs, call: LayerCall): Outputs;
}

export type WithGradY = LayerCall & Required<Pick<LayerCall, 'gradY'>>;

export const honest: Parts = {
  logits: ({ x, weights }) => linear(x, weights.router),
  probs: softmax,
  select: (routing, { inputs, config }) => routers[config.router].select(routing, inputs, config),
  capacity({ config, inputs, x }) {
    if (neverDrops(config.router) || config.capacityFactor === null) return Number.POSITIVE_INFINITY;
    const numTokens = inputs.tokenMask ? inputs.tokenMask.filter(real => real === 1).length : x.rows;
    return capacityOf(numTokens, config.capacityFactor, config.minCapacity ?? 4, config.numExperts);
  },
  priority: (a, b) => a.rank - b.rank || b.prob - a.prob || a.token - b.token,
  keep(queues, capacity, { config }, selection) {
    const kept = new Uint8Array(selection.expertIndex.length);
    queues.forEach((queue, e) => {
      const limit = config.skipExpert && e === 0 ? Number.POSITIVE_INFINITY : capacity;
      for (const { pair } of queue.slice(0, limit)) kept[pair] = 1;
    });
    return kept;
  },
  weigh: plan => plan.combineWeight,
  experts: (plan, { x, weights, config }) => runExperts(x, plan, weights, config),
  combine,
  loss: ({ probs }, _, { config, inputs }) =>
    routers[config.router].balanced ? loadBalancingLoss(probs, inputs.tokenMask) : 0,
  combineBackward: ({ experts, plan }, { gradY }) => combineBackward(gradY, experts.out, plan),
  weightBackward: (gradWeight, { plan, routing }, { config }) => dispatchBackward(gradWeight, plan, routing, config),
  lossBackward({ routing: { probs } }, { config, inputs }) {
    const alpha = routers[config.router].balanced ? (config.auxLossCoef ?? 0) : 0;
    return mapped(loadBalancingLossBackward(probs, inputs.tokenMask), v => alpha * v);
  },
  expertsBackward: (gradOut, { plan }, { x, weights, config }) => runExpertsBackward(gradOut, x, plan, weights, config),
  routeBackward: (gradRouting, { routing }, { x, weights }) => routeBackward(gradRouting, routing, x, weights),
  gradients: right => right,
  outputs: right => right,
};

export function neverDrops(router: LayerCall['config']['router']): boolean {
  return routers[router].dropOrder === 'none';
}

/** The layer with some parts replaced. `f64`: nothing is rounded. */
export function layerOfParts(name: string, change: Partial<Parts>, format: 'f32' | 'f64' = 'f32'): Implementation {
  const parts = { ...honest, ...change };
  const round = (a: Matrix): Matrix => (format === 'f64' ? a : { ...a, data: Float32Array.from(a.data) });
  return {
    name,
    arithmetic: arithmeticNamed(format),
    run(call) {
      const trace = forward(parts, call, round);
      const { out } = trace.experts;
      const gradients = call.gradY && backwardOf(parts, trace, { ...call, gradY: call.gradY });
      const outputs = outputTensors(trace, gradients && roundedGradients(gradients, round));
      outputs.set('expert_out', { shape: [out.rows, out.cols], data: out.data });
      return parts.outputs(outputs, call);
    },
  };
}

function forward(parts: Parts, call: LayerCall, round: (a: Matrix) => Matrix): Trace {
  const { config, inputs } = call;
  const logits = round(parts.logits(call));
  const routing = { logits, probs: round(parts.probs(logits, call)) };
  const selection = parts.select(routing, call);
  const capacity = parts.capacity(call, selection);
  const queues = queuesOf(selection, routing, (a, b) => parts.priority(a, b, routing));
  const kept = parts.keep(queues, capacity, call, selection);
  const right = planOf(selection, kept, Math.min(capacity, selection.numTokens), routing, config);
  const plan = { ...right, combineWeight: roundVector(parts.weigh(right, routing, call), round) };
  const rows = parts.experts(plan, call);
  const experts = { hidden: rows.hidden, out: round(rows.out) };
  return {
    backend: 'parts',
    routing,
    plan,
    experts,
    y: round(parts.combine(experts.out, plan, call)),
    loadBalancingLoss: roundVector([parts.loss(routing, plan, call)], round)[0],
    statistics: statisticsOf(plan, rows.hidden, config, inputs.tokenMask),
    cost: { router: 0, experts: 0, total: 0 },
  };
}

/** As `backward` of xmoe, with parts that can be replaced. */
function backwardOf(parts: Parts, trace: Trace, call: WithGradY): Gradients {
  const gradCombine = parts.combineBackward(trace, call);
  const gradExperts = parts.expertsBackward(gradCombine.out, trace, call);
  const gradRouting = parts.weightBackward(gradCombine.weight, trace, call);
  const gradProbs = sumOf(gradRouting.probs, parts.lossBackward(trace, call));
  const gradRoute = parts.routeBackward({ ...gradRouting, probs: gradProbs }, trace, call);
  const { loss } = backward(trace, call.x, call.weights, call.config, call.gradY, call.inputs);
  const right = {
    loss,
    x: sumOf(gradExperts.x, gradRoute.x),
    weights: { ...gradExperts.weights, router: gradRoute.router },
  };
  return parts.gradients(right, trace, call);
}

function queuesOf(
  selection: Selection,
  { probs }: Routing,
  before: (a: Candidate, b: Candidate) => number,
): Candidate[][] {
  const queues: Candidate[][] = Array.from({ length: selection.numExperts }, () => []);
  for (const { pair, token, rank, expert } of pairsOf(selection)) {
    const prob = probs.cols > 0 ? probs.data[token * probs.cols + expert] : 1;
    queues[expert].push({ pair, token, rank, prob });
  }
  return queues.map(queue => queue.sort(before));
}

function roundVector(values: ArrayLike<number>, round: (a: Matrix) => Matrix): Floats {
  return round({ rows: 1, cols: values.length, data: Float64Array.from(values) }).data;
}

function roundedGradients(gradients: Gradients, round: (a: Matrix) => Matrix): Gradients {
  const { router, up, upBias, gate, gateBias, down, downBias } = gradients.weights;
  return {
    loss: roundVector([gradients.loss], round)[0],
    x: round(gradients.x),
    weights: {
      router: round(router),
      up: up.map(round),
      ...(upBias && { upBias: round(upBias) }),
      ...(gate && { gate: gate.map(round) }),
      ...(gateBias && { gateBias: round(gateBias) }),
      down: down.map(round),
      ...(downBias && { downBias: round(downBias) }),
    },
  };
}
