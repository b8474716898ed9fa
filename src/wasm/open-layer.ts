/** A layer in memory, and the decisions of a call: which experts have which rows. */
import { dispatch as referenceDispatch } from '../dispatch.js';
import { routers } from '../selection/routers.js';
import type { Config, DispatchPlan, Matrix, Routing, RoutingInputs } from '../types.js';
import type { Computation, Open } from './held.js';
import type { PackedWeights } from './packed-weights.js';
import { put, type Workspace } from './workspace.js';

/** A workspace whose memory holds the weights of a layer. */
export type OpenLayer = Open<PackedWeights>;

/** A computation on the layer: it yields the loops that may be split, for so many threads. */
export type LayerComputation<Result> = Computation<PackedWeights, Result>;

/** What a fused call hands over. */
export interface LayerResult {
  readonly y: Matrix;
  /** Asked for before the layer's next call. */
  readonly plan: () => DispatchPlan;
}

/** The reference's decisions on this routing; BASE's weights by the kernels' own sigmoid, since engines differ in theirs. */
export function dispatch(space: Workspace, routing: Routing, inputs: RoutingInputs, config: Config): DispatchPlan {
  const plan = referenceDispatch(routing, inputs, config);
  const combineWeight = new Float32Array(plan.combineWeight);
  if (routers[config.router].weight === 'sigmoid') {
    const sigmoids = sigmoidsOf(space, routing.logits);
    for (let e = 0; e < plan.selection.numExperts; e++) {
      for (let i = plan.expertOffsets[e]; i < plan.expertOffsets[e + 1]; i++) {
        combineWeight[i] = sigmoids[plan.tokenIndex[i] * routing.logits.cols + e];
      }
    }
  }
  return { ...plan, combineWeight };
}

function sigmoidsOf(space: Workspace, logits: Matrix): Float32Array {
  const { memory, kernels } = space;
  const data = logits.data.slice(); // allocating may move memory, and leave a view of it without elements
  const logitsPtr = put(space, { ...logits, data });
  const outPtr = memory.allocate(4 * data.length);
  kernels.sigmoid_f32(logitsPtr, outPtr, data.length);
  return memory.floats(outPtr, data.length).slice();
}

/** An expert that has rows: `numGiven` of the plan's, from `first` on. */
export interface BusyExpert {
  /** Its place among the real ones. */
  readonly index: number;
  readonly first: number;
  readonly numGiven: number;
}

/** The real experts that have rows, in order. */
export function busyExperts(expertOffsets: ArrayLike<number>, { experts }: PackedWeights): BusyExpert[] {
  const numSkip = expertOffsets.length - 1 - experts.length;
  const busy: BusyExpert[] = [];
  for (let index = 0; index < experts.length; index++) {
    const first = expertOffsets[index + numSkip];
    const numGiven = expertOffsets[index + numSkip + 1] - first;
    if (numGiven > 0) busy.push({ index, first, numGiven });
  }
  return busy;
}
