/** Who is given which rows: decided by kernels where nothing can be dropped, else by the reference. */
import { planWithinCapacity } from '../dispatch.js';
import type { Config, DispatchPlan, RoutingInputs, Selection } from '../types.js';
import { checkRouting } from '../validate.js';
import { newSums, type Sums, zeroRows } from './expert-rows.js';
import { type BusyExpert, busyExperts, dispatch, type OpenLayer } from './open-layer.js';
import { type RouterRows, routingIn } from './router-rows.js';
import { putAddresses, putBytes, type Rows, type Workspace } from './workspace.js';

/** Rows in memory, one for each token. */
export interface TokenRows {
  readonly numTokens: number;
  /** As products read them. */
  readonly x: Rows;
  /** Where the experts' rows are to be added. Default: new ones. */
  readonly y?: Rows;
}

/** What the experts of a call are given, in its memory. */
export interface Placed {
  /** The real experts that have rows, in order. */
  readonly busy: readonly BusyExpert[];
  /** All rows, those of the skip expert included, which come first. */
  readonly numRows: number;
  /** For each row the address of the token's x. */
  readonly xList: number;
  readonly sums: Sums;
  /** What was decided: asked for before memory is used again. */
  readonly plan: () => DispatchPlan;
  /** Where the kernel chose, and where it wrote what. */
  readonly choices?: Choices;
}

/** What each token chose, as `select_f32` writes it: addresses. */
export interface Choices {
  readonly tokenOffsets: number;
  readonly expertIndex: number;
  readonly expertProbs: number;
  readonly margins: number;
}

/** The kernel looks for the best of those left, again and again: of more experts the reference sorts them sooner. */
const MOST_EXPERTS = 1024;

function newChoices({ memory }: Workspace, numTokens: number, numLogits: number): Choices {
  const numPairs = numTokens * numLogits;
  return {
    tokenOffsets: memory.allocate(4 * (numTokens + 1)),
    expertIndex: memory.allocate(4 * numPairs),
    expertProbs: memory.allocate(4 * numPairs),
    margins: memory.allocate(8 * numTokens),
  };
}

/**
 * The reference's decisions on the probabilities that are there.
 *
 * @throws RangeError where logits overflow float32
 */
export function place(
  layer: OpenLayer,
  router: RouterRows,
  tokens: TokenRows,
  inputs: RoutingInputs,
  config: Config,
): Placed {
  checkRouting(routingIn(layer, router, tokens.numTokens));
  const threshold = thresholdOf(config, layer.packed.numLogits);
  return threshold === undefined
    ? placeByPlan(layer, router, tokens, inputs, config)
    : placeByKernel(layer, router, tokens, threshold, inputs, config);
}

/** That of a router whose decisions the kernel makes, where nothing can be dropped: out of reach for every expert. */
function thresholdOf({ router, threshold, capacityFactor }: Config, numLogits: number): number | undefined {
  if (numLogits > MOST_EXPERTS) return undefined;
  if (router === 'dense') return Number.POSITIVE_INFINITY;
  return router === 'threshold' && capacityFactor === null ? threshold : undefined;
}

function placeByPlan(
  layer: OpenLayer,
  router: RouterRows,
  { numTokens, x, y }: TokenRows,
  inputs: RoutingInputs,
  config: Config,
): Placed {
  const plan = dispatch(layer, routingIn(layer, router, numTokens), inputs, config);
  return {
    busy: busyExperts(plan.expertOffsets, layer.packed),
    numRows: plan.tokenIndex.length,
    xList: putAddresses(layer, x, plan.tokenIndex),
    sums: newSums(layer, layer.packed.dModel, plan, y),
    plan: () => plan,
  };
}

function placeByKernel(
  layer: OpenLayer,
  router: RouterRows,
  { numTokens, x, y: given }: TokenRows,
  threshold: number,
  inputs: RoutingInputs,
  config: Config,
): Placed {
  const { memory, kernels, packed } = layer;
  const { dModel, numLogits } = packed;
  const choices = newChoices(layer, numTokens, numLogits);
  const { tokenOffsets, expertIndex, expertProbs, margins } = choices;
  const maskPtr = inputs.tokenMask ? putBytes(layer, inputs.tokenMask) : 0;
  const rowPtr = memory.allocate(4 * (numLogits + 4));
  // biome-ignore format: a line a kernel
  const numRows = kernels.select_f32(router.probs, maskPtr, numTokens, numLogits, threshold, tokenOffsets, expertIndex, expertProbs, margins, rowPtr);
  memory.reserve((given ? 0 : 4 * numTokens * dModel) + 4 * (numLogits + 1) + 12 * numRows);
  const y = zeroRows(layer, numTokens, dModel, given);
  const expertOffsets = memory.allocate(4 * (numLogits + 1));
  const list = () => memory.allocate(4 * numRows);
  const [xList, targets, weightsPtr] = [list(), list(), list()];
  // biome-ignore format: a line a kernel
  kernels.place_f32(tokenOffsets, expertIndex, expertProbs, numTokens, numLogits, x.ptr, 4 * x.stride, y.ptr, 4 * y.stride, expertOffsets, xList, targets, weightsPtr);
  return {
    busy: busyExperts(memory.words(expertOffsets, numLogits + 1), packed),
    numRows,
    xList,
    sums: { y, dModel, targets, weightsPtr },
    plan: () => {
      const selection = selectionIn(layer, choices, numTokens);
      const plan = planWithinCapacity(selection, routingIn(layer, router, numTokens), inputs, config);
      return { ...plan, combineWeight: new Float32Array(plan.combineWeight) };
    },
    choices,
  };
}

function selectionIn(layer: OpenLayer, { tokenOffsets, expertIndex }: Choices, numTokens: number): Selection {
  const { memory, packed } = layer;
  const offsets = Int32Array.from(memory.words(tokenOffsets, numTokens + 1));
  return {
    numTokens,
    numExperts: packed.numLogits,
    tokenOffsets: offsets,
    expertIndex: Int32Array.from(memory.words(expertIndex, offsets[numTokens])),
  };
}
