/** The layer on one thread: expert by expert, whose rows stay in its caches, each over those of the one before. */
import { largestMagnitude } from '../matrix.js';
import type { Config, Matrix, RoutingInputs } from '../types.js';
import { checkRouting } from '../validate.js';
import { addAlone, giveRows, newSums } from './expert-rows.js';
import { beginWith, routeLoop } from './layer-loops.js';
import { busyExperts, dispatch, type LayerResult, type OpenLayer } from './open-layer.js';
import { ffnMemory, reserve } from './products.js';
import type { Loop } from './tasks.js';
import { take } from './workspace.js';

/** All stages in one, x to y: the same bits as one after another. */
export function* layerAlone(
  layer: OpenLayer,
  x: Matrix,
  inputs: RoutingInputs,
  config: Config,
): Generator<Loop, LayerResult, void> {
  const given = beginWith(layer, x);
  const routing = yield* routeLoop(layer, given, x.rows);
  checkRouting(routing);
  const plan = dispatch(layer, routing, inputs, config);
  const busy = busyExperts(plan.expertOffsets, layer.packed);
  const numAtOnce = largestMagnitude(busy.map(({ numGiven }) => numGiven));
  reserve(layer, plan, numAtOnce);
  const xList = yield* giveRows(layer, given, plan);
  const sums = newSums(layer, x.cols, plan);
  yield* addAlone(layer, xList, busy, ffnMemory(layer, numAtOnce), sums, config);
  return { y: take(layer, sums.y.ptr, x.rows, x.cols, sums.y.stride), plan };
}
