/** The stages of a layer on the kernels: each alone for a trace, and all in one for speed, with the same bits. */
import { largestMagnitude } from '../matrix.js';
import { routers } from '../selection/routers.js';
import type { ActivationName, Config, DispatchPlan, ExpertRows, Matrix, Routing, RoutingInputs } from '../types.js';
import { checkRouting } from '../validate.js';
import type { PackedExpert, PackedWeights } from './packed-weights.js';
import { padded } from './panels.js';
import { fastDispatch } from './select.js';
import { type Call, perform } from './tasks.js';
import { begin, put, putAddresses, take, type Workspace } from './workspace.js';

/** A workspace whose memory begins with the weights of a layer. */
export interface OpenLayer extends Workspace {
  readonly packed: PackedWeights;
}

/** The ids of assembly/elementary.ts: of the activation itself, or of the gate's in a gated expert. */
const ACTIVATION_ID: Readonly<Record<ActivationName, number>> = {
  relu: 0,
  gelu: 1,
  gelu_tanh: 2,
  silu: 3,
  swiglu: 3,
  geglu: 1,
};

export function route(layer: OpenLayer, x: Matrix): Routing {
  begin(layer);
  const { logits, probs } = routeOn(layer, put(layer, x), x.rows);
  return { logits: { ...logits, data: logits.data.slice() }, probs: { ...probs, data: probs.data.slice() } };
}

/** The routing as views of memory, good until something is allocated. */
function routeOn({ memory, kernels, packed }: OpenLayer, xPtr: number, numTokens: number): Routing {
  const { dModel, numLogits, routerPtr } = packed;
  const length = numTokens * numLogits;
  const [logitsPtr, probsPtr] = [memory.allocate(4 * length), memory.allocate(4 * length)];
  if (numLogits > 0) {
    kernels.route_f32(xPtr, routerPtr, logitsPtr, memory.allocate(16 * dModel), numTokens, dModel, numLogits);
    kernels.softmax_f32(logitsPtr, probsPtr, numTokens, numLogits);
  }
  const view = (ptr: number) => ({ rows: numTokens, cols: numLogits, data: memory.floats(ptr, length) });
  return { logits: view(logitsPtr), probs: view(probsPtr) };
}

/** The reference's decisions on this routing; BASE's weights by the kernels' own sigmoid, since engines differ in theirs. */
export function dispatch(space: Workspace, routing: Routing, inputs: RoutingInputs, config: Config): DispatchPlan {
  const plan = fastDispatch(routing, inputs, config);
  const combineWeight = Float32Array.from(plan.combineWeight);
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

export function runExperts(layer: OpenLayer, x: Matrix, plan: DispatchPlan, config: Config): ExpertRows {
  begin(layer);
  const { memory, kernels, packed } = layer;
  const { dModel, dFf, panelWidth } = packed;
  const [widthOut, widthHidden] = [padded(dModel, panelWidth), padded(dFf, panelWidth)];
  const numRows = plan.tokenIndex.length;
  const rowsPtr = putAddresses(layer, put(layer, x), plan.tokenIndex, dModel);
  const hiddenPtr = memory.allocateZeros(4 * numRows * widthHidden);
  const outPtr = memory.allocateZeros(4 * numRows * widthOut);
  for (const { expert, first, numGiven } of busyExperts(plan, packed)) {
    const [hidden, out] = [hiddenPtr + 4 * first * widthHidden, outPtr + 4 * first * widthOut];
    perform(kernels, activation(packed, expert, rowsPtr + 4 * first, numGiven, hidden, config));
    const { panelsPtr, biasPtr } = expert.down;
    kernels.down_f32(hidden, widthHidden, numGiven, panelsPtr, biasPtr, out, widthOut, dFf, 0, widthOut / panelWidth);
  }
  return {
    hidden: take(layer, hiddenPtr, numRows, dFf, widthHidden),
    out: take(layer, outPtr, numRows, dModel, widthOut),
  };
}

/** σ(W1 x + b1), or the gated form, of rows given to one expert. */
export function activation(
  { dModel, dFf, panelWidth }: PackedWeights,
  { up, gate }: PackedExpert,
  rowsPtr: number,
  numRows: number,
  hiddenPtr: number,
  config: Config,
): Call {
  const numPanels = padded(dFf, panelWidth) / panelWidth;
  const id = ACTIVATION_ID[config.activation];
  if (!gate) return ['up_f32', rowsPtr, numRows, up.panelsPtr, up.biasPtr, hiddenPtr, dModel, numPanels, id];
  // biome-ignore format: the arguments of one call on one line
  return ['up_gated_f32', rowsPtr, numRows, up.panelsPtr, up.biasPtr, gate.panelsPtr, gate.biasPtr, hiddenPtr, dModel, numPanels, id];
}

/** The real experts that have rows, in order: `numGiven` rows from `first` on. */
export function busyExperts({ expertOffsets, selection }: DispatchPlan, { experts }: PackedWeights) {
  const numSkip = selection.numExperts - experts.length;
  return experts
    .map((expert, e) => ({
      expert,
      first: expertOffsets[e + numSkip],
      numGiven: expertOffsets[e + numSkip + 1] - expertOffsets[e + numSkip],
    }))
    .filter(({ numGiven }) => numGiven > 0);
}

export function combine(space: Workspace, expertOut: Matrix, plan: DispatchPlan): Matrix {
  begin(space);
  const { memory, kernels } = space;
  const { rows: numRows, cols } = expertOut;
  const { numTokens } = plan.selection;
  const outPtr = put(space, expertOut);
  const weightsPtr = put(space, { rows: numRows, cols: 1, data: plan.combineWeight });
  const yPtr = memory.allocateZeros(4 * numTokens * cols);
  const targetsPtr = putAddresses(space, yPtr, plan.tokenIndex, cols);
  kernels.combine_f32(outPtr, cols, weightsPtr, targetsPtr, numRows, cols);
  return take(space, yPtr, numTokens, cols, cols);
}

/** What a fused call hands over. */
export interface LayerResult {
  readonly y: Matrix;
  readonly plan: DispatchPlan;
}

/** All stages in one, x to y: the same bits as one after another. */
export function runLayer(layer: OpenLayer, x: Matrix, inputs: RoutingInputs, config: Config): LayerResult {
  begin(layer);
  const { memory, kernels, packed } = layer;
  const { dModel, dFf, panelWidth } = packed;
  const [widthOut, widthHidden] = [padded(dModel, panelWidth), padded(dFf, panelWidth)];
  const xPtr = put(layer, x);
  const routing = routeOn(layer, xPtr, x.rows);
  checkRouting(routing);
  const plan = dispatch(layer, routing, inputs, config);

  const busy = busyExperts(plan, packed);
  const mostGiven = largestMagnitude(busy.map(({ numGiven }) => numGiven));
  const hiddenPtr = memory.allocate(4 * mostGiven * widthHidden);
  const yPtr = memory.allocateZeros(4 * x.rows * widthOut);
  const rowsPtr = putAddresses(layer, xPtr, plan.tokenIndex, dModel);
  const targetsPtr = putAddresses(layer, yPtr, plan.tokenIndex, widthOut);
  const weightsPtr = put(layer, { rows: plan.tokenIndex.length, cols: 1, data: plan.combineWeight });
  for (const { expert, first, numGiven } of busy) {
    const [rows, weights, targets] = [rowsPtr, weightsPtr, targetsPtr].map(ptr => ptr + 4 * first);
    perform(kernels, activation(packed, expert, rows, numGiven, hiddenPtr, config));
    const { panelsPtr, biasPtr } = expert.down;
    // biome-ignore format: the arguments of one call on one line
    kernels.down_combine_f32(hiddenPtr, widthHidden, numGiven, panelsPtr, biasPtr, weights, targets, dFf, 0, widthOut / panelWidth);
  }
  return { y: take(layer, yPtr, x.rows, dModel, widthOut), plan };
}
