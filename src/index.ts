/** The reference: the layer, its stages, its gradients, and what it can say about a call. */
export { type Activation, activations, sigmoid } from './activations.js';
export { capacityOf, keepByPriority } from './capacity.js';
export { combine, combineBackward } from './combine.js';
export { countPerExpert, dispatch, dispatchBackward, planOf } from './dispatch.js';
export { erf, erfc } from './erf.js';
export { runExperts, runExpertsBackward } from './experts.js';
export { referenceF32 } from './float32.js';
export { linear } from './linear.js';
export { loadBalancingLoss, loadBalancingLossBackward } from './loss.js';
export {
  type CapacityMargin,
  type Margin,
  marginsOf,
  type OrderMargin,
  type ThresholdMargin,
} from './margins.js';
export { zeros } from './matrix.js';
export { backward, forward, type LayerRun, reference, runLayer } from './moe.js';
export * from './quantize.js';
export { route, routeBackward, softmax } from './router.js';
export { balancedAssignment } from './selection/assignment.js';
export { routers } from './selection/routers.js';
export { selectExceed, selectThreshold, selectWithin } from './selection/threshold.js';
export { costOf, denseFlops, statisticsOf } from './statistics.js';
export * from './types.js';
export { checkLayer } from './validate.js';
