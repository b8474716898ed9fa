/** The layer on one thread: expert by expert, whose rows stay in its caches, each over those of the one before. */
import { largestMagnitude } from '../matrix.js';
import type { Config, DispatchPlan, Matrix, RoutingInputs } from '../types.js';
import { checkRouting } from '../validate.js';
import { beginWith, routeLoop } from './layer-loops.js';
import { busyExperts, dispatch, type OpenLayer } from './open-layer.js';
import { encode, encodedRows, expertMemory, hiddenRows, product, reserve, scratchBytes } from './products.js';
import { type Call, type Loop, perform } from './tasks.js';
import { put, putAddresses, type Rows, take } from './workspace.js';

/** What a fused call hands over. */
export interface LayerResult {
  readonly y: Matrix;
  readonly plan: DispatchPlan;
}

/** All stages in one, x to y: the same bits as one after another. */
export function* layerAlone(
  layer: OpenLayer,
  x: Matrix,
  inputs: RoutingInputs,
  config: Config,
): Generator<Loop, LayerResult, void> {
  const { memory, kernels, packed } = layer;
  const [numTokens, dModel] = [x.rows, x.cols];
  const given = beginWith(layer, x);
  const routing = yield* routeLoop(layer, given, numTokens);
  checkRouting(routing);
  const plan = dispatch(layer, routing, inputs, config);

  const busy = busyExperts(plan, packed);
  const mostGiven = largestMagnitude(busy.map(({ numGiven }) => numGiven));
  reserve(layer, plan, mostGiven);
  const rows = expertMemory(layer, mostGiven, mostGiven);
  const scratchPtr = memory.allocate(scratchBytes(packed));
  const encoded = encodedRows(layer, given, numTokens, dModel);
  const xList = putAddresses(layer, encoded, plan.tokenIndex);
  const y: Rows = { ptr: memory.allocateZeros(4 * numTokens * dModel), stride: dModel };
  const targets = putAddresses(layer, y, plan.tokenIndex);
  const weightsPtr = put(layer, { rows: plan.tokenIndex.length, cols: 1, data: plan.combineWeight });

  const run = (calls: readonly Call[]) => {
    for (const call of calls) perform(kernels, call);
  };
  run(encode(packed, given, numTokens, dModel, encoded));
  for (const { expert, first, numGiven } of busy) {
    run([
      ...hiddenRows(packed, expert, numGiven, xList + 4 * first, rows, scratchPtr, config),
      product(packed, expert.down, numGiven, rows.encoded.list, rows.out.list, scratchPtr),
      ['combine_f32', rows.out.list, weightsPtr + 4 * first, targets + 4 * first, numGiven, 0, dModel],
    ]);
  }
  return { y: take(layer, y.ptr, numTokens, dModel, dModel), plan };
}
