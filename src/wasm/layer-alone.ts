/** The layer on one thread: expert by expert, whose rows stay in its caches, each over those of the one before. */
import { largestMagnitude } from '../matrix.js';
import type { Config, Matrix, RoutingInputs } from '../types.js';
import { addAlone } from './expert-rows.js';
import { decide } from './layer-loops.js';
import type { LayerResult, OpenLayer } from './open-layer.js';
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
  const { busy, xList, sums, plan } = yield* decide(layer, x, inputs, config);
  const numAtOnce = largestMagnitude(busy.map(({ numGiven }) => numGiven));
  reserve(layer, numAtOnce);
  yield* addAlone(layer, xList, busy, ffnMemory(layer, numAtOnce), sums, config);
  return { y: take(layer, sums.y.ptr, x.rows, x.cols, sums.y.stride), plan };
}
