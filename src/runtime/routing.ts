/** Who is given which rows of a batch, and what is known of it afterwards. */
import type { Config } from '../types.js';
import { checkRouting } from '../validate.js';
import { newSums, type Sums } from '../wasm/expert-rows.js';
import { type RouterRows, routingOf } from '../wasm/layer-loops.js';
import { type BusyExpert, busyExperts, dispatch, type OpenLayer } from '../wasm/open-layer.js';
import { putAddresses } from '../wasm/workspace.js';
import type { Batch } from './batch.js';
import { type Choices, chosenTokens, routedTokens } from './facts.js';
import type { RoutedToken } from './types.js';

/** What the experts of a layer are given. */
export interface Placed {
  readonly busy: readonly BusyExpert[];
  /** For each row the address of the token's x. */
  readonly xList: number;
  readonly sums: Sums;
  /** What was decided on each token. */
  readonly tokens: RoutedToken[];
}

/**
 * The decisions on a batch whose logits and probabilities are there: the reference's on these probabilities.
 *
 * @throws RangeError where the logits overflow float32
 */
export function placeRows(layer: OpenLayer, router: RouterRows, batch: Batch, config: Config): Placed {
  const { packed } = layer;
  const routing = routingOf(layer, router, batch.numRows);
  checkRouting(routing);
  const threshold = reachable(config);
  if (threshold !== undefined) return placeByKernel(layer, router, batch, threshold);
  const plan = dispatch(layer, routing, {}, config);
  const { probs } = routingOf(layer, router, batch.numRows); // deciding may have moved the memory
  const tokens = routedTokens(probs, plan, config);
  return {
    busy: busyExperts(plan.expertOffsets, packed),
    xList: putAddresses(layer, batch.normedCodes, plan.tokenIndex),
    sums: newSums(layer, packed.dModel, plan, batch.y),
    tokens,
  };
}

/** The threshold of a router that the kernel knows, without a capacity: out of reach where every expert is wanted. */
function reachable({ router, threshold, capacityFactor }: Config): number | undefined {
  if (router === 'dense') return Number.POSITIVE_INFINITY;
  return router === 'threshold' && capacityFactor === null ? threshold : undefined;
}

function placeByKernel(
  { memory, kernels, packed }: OpenLayer,
  { probs }: RouterRows,
  { numRows, normedCodes, y }: Batch,
  threshold: number,
): Placed {
  const { dModel, numLogits } = packed;
  const most = 4 * numRows * numLogits;
  const choices: Choices = {
    tokenOffsets: memory.allocate(4 * (numRows + 1)),
    expertIndex: memory.allocate(most),
    expertProbs: memory.allocate(most),
    margins: memory.allocate(8 * numRows),
  };
  const { tokenOffsets, expertIndex, expertProbs, margins } = choices;
  const rowPtr = memory.allocate(4 * (numLogits + 4));
  kernels.select_f32(probs, numRows, numLogits, threshold, tokenOffsets, expertIndex, expertProbs, margins, rowPtr);
  const expertOffsets = memory.allocate(4 * (numLogits + 1));
  const [xList, targets, weightsPtr] = [memory.allocate(most), memory.allocate(most), memory.allocate(most)];
  kernels.place_f32(
    tokenOffsets,
    expertIndex,
    expertProbs,
    numRows,
    numLogits,
    normedCodes.ptr,
    4 * normedCodes.stride,
    y.ptr,
    4 * y.stride,
    expertOffsets,
    xList,
    targets,
    weightsPtr,
  );
  memory.floats(y.ptr, numRows * dModel).fill(0);
  return {
    busy: busyExperts(memory.words(expertOffsets, numLogits + 1), packed),
    xList,
    sums: { y, dModel, targets, weightsPtr },
    tokens: chosenTokens(memory, choices, numRows),
  };
}
