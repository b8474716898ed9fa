/** The layer: x -> route -> dispatch -> runExperts -> combine -> y, written once, for any backend; and back. */
import { combine, combineBackward } from './combine.js';
import { dispatch, dispatchBackward } from './dispatch.js';
import { runExperts, runExpertsBackward } from './experts.js';
import { loadBalancingLoss, loadBalancingLossBackward } from './loss.js';
import { addScaled, compensatedDot } from './matrix.js';
import { route, routeBackward } from './router.js';
import { routers } from './selection/routers.js';
import { costOf, statisticsOf } from './statistics.js';
import type { Backend, Config, Gradients, Matrix, RoutingInputs, Trace, Weights } from './types.js';
import { checkBackward, checkInputs, checkLayer, checkRouting } from './validate.js';

/** The definition of XMoE: the five stages of this folder, float64 from end to end. */
export const reference: Backend = {
  name: 'reference',
  precision: 'f64',
  route,
  dispatch,
  runExperts,
  combine,
  backward,
};

/**
 * Run one layer and keep what every stage said.
 *
 * Shapes  x [T, d] -> trace with y [T, d]
 * Non-finite input, shapes that disagree and settings out of range are refused before anything runs (rules R4, D3)
 * @throws TypeError | RangeError naming the argument, what was expected and what came
 */
export function forward(
  backend: Backend,
  x: Matrix,
  weights: Weights,
  config: Config,
  inputs: RoutingInputs = {},
): Trace {
  checkLayer(weights, config);
  return runLayer(backend, x, weights, config, inputs);
}

/** `forward` for weights and config that passed `checkLayer` once, as a model's do when it is loaded. */
export function runLayer(
  backend: Backend,
  x: Matrix,
  weights: Weights,
  config: Config,
  inputs: RoutingInputs = {},
): Trace {
  checkInputs(x, weights.up[0].cols, config, inputs);
  const routing = backend.route(x, weights);
  checkRouting(routing);
  const plan = backend.dispatch(routing, inputs, config);
  const experts = backend.runExperts(x, plan, weights, config);
  const y = backend.combine(experts.out, plan);
  return {
    backend: backend.name,
    routing,
    plan,
    experts,
    y,
    loadBalancingLoss: routers[config.router].balanced ? loadBalancingLoss(routing.probs, inputs.tokenMask) : 0,
    statistics: statisticsOf(plan, experts.hidden, config, inputs.tokenMask),
    cost: costOf(plan, weights, config),
  };
}

/** What is left of a trace where nobody looks at the stages. */
export type LayerRun = Pick<Trace, 'backend' | 'plan' | 'y' | 'cost'>;

/** `runLayer` for those who need no more than this: in the backend's one fused call, where it has one. */
export function runFused(backend: Backend, x: Matrix, weights: Weights, config: Config): LayerRun {
  if (!backend.fused) return runLayer(backend, x, weights, config);
  checkInputs(x, weights.up[0].cols, config, {});
  const { plan, y } = backend.fused(x, weights, config, {});
  return { backend: backend.name, plan, y, cost: costOf(plan, weights, config) };
}

/**
 * The gradients of loss = Σ(y ⊙ gradY) + α·l_aux, each stage's backward in reverse order.
 *
 * Rule    G1-G7; no gradient flows through a decision
 * Shapes  gradY [T, d] -> a gradient of the same shape for x and for every weight
 */
export function backward(
  trace: Trace,
  x: Matrix,
  weights: Weights,
  config: Config,
  gradY: Matrix,
  inputs: RoutingInputs = {},
): Gradients {
  checkBackward(gradY, trace, x);
  const { routing, plan, experts, y } = trace;
  const alpha = config.auxLossCoef ?? 0;
  const gradCombine = combineBackward(gradY, experts.out, plan);
  const gradExperts = runExpertsBackward(gradCombine.out, x, plan, weights, config);
  const gradRouting = dispatchBackward(gradCombine.weight, plan, routing, config);
  if (routers[config.router].balanced) {
    addScaled(gradRouting.probs.data, alpha, loadBalancingLossBackward(routing.probs, inputs.tokenMask).data);
  }
  const gradRoute = routeBackward(gradRouting, routing, x, weights);
  addScaled(gradExperts.x.data, 1, gradRoute.x.data);
  return {
    loss: compensatedDot(y.data, gradY.data) + alpha * trace.loadBalancingLoss,
    x: gradExperts.x,
    weights: { ...gradExperts.weights, router: gradRoute.router },
  };
}
