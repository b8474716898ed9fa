/** The stages of a layer on the kernels: each alone for a trace, and all in one for speed, with the same bits. */
import { largestMagnitude } from '../matrix.js';
import { routers } from '../selection/routers.js';
import type { Config, DispatchPlan, ExpertRows, Matrix, Routing, RoutingInputs } from '../types.js';
import { checkRouting } from '../validate.js';
import { Finish } from './kernels.js';
import type { PackedWeights } from './packed-weights.js';
import { padded } from './panels.js';
import { hiddenRows, product } from './products.js';
import { fastDispatch } from './select.js';
import { perform } from './tasks.js';
import { begin, put, putAddresses, take, type Workspace } from './workspace.js';

/** A workspace whose memory begins with the weights of a layer. */
export interface OpenLayer extends Workspace {
  readonly packed: PackedWeights;
}

/** Bytes that `route_f32` needs beside its arguments. */
export function routeScratch({ dModel }: PackedWeights): number {
  return 32 * dModel + 256;
}

/** Tokens that its tiles hold. */
export function routeTokens({ set }: PackedWeights): number {
  return set.panelWidth === 16 ? 4 : 2;
}

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
    const scratchPtr = memory.allocate(routeScratch(packed));
    kernels.route_f32(xPtr, routerPtr, logitsPtr, scratchPtr, numTokens, dModel, numLogits, routeTokens(packed));
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
  const { dModel, dFf, set } = packed;
  const [widthOut, widthHidden] = [padded(dModel, set.panelWidth), padded(dFf, set.panelWidth)];
  const numRows = plan.tokenIndex.length;
  const xRows = putAddresses(layer, put(layer, x), dModel, plan.tokenIndex);
  const hiddenPtr = memory.allocateZeros(4 * numRows * widthHidden);
  const outPtr = memory.allocateZeros(4 * numRows * widthOut);
  const inOrder = Int32Array.from({ length: numRows }, (_, i) => i);
  const hidden = putAddresses(layer, hiddenPtr, widthHidden, inOrder);
  const out = putAddresses(layer, outPtr, widthOut, inOrder);
  for (const { expert, first, numGiven } of busyExperts(plan, packed)) {
    const [x, h, o] = [xRows, hidden, out].map(ptr => ptr + 4 * first);
    const calls = [
      ...hiddenRows(packed, expert, { count: numGiven, from: x, to: h }, hiddenPtr + 4 * first * widthHidden, config),
      product(packed, expert.down, { count: numGiven, from: h, to: o }, Finish.STORE),
    ];
    for (const call of calls) perform(kernels, call);
  }
  return {
    hidden: take(layer, hiddenPtr, numRows, dFf, widthHidden),
    out: take(layer, outPtr, numRows, dModel, widthOut),
  };
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
  const targetsPtr = putAddresses(space, yPtr, cols, plan.tokenIndex);
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
  const { dModel, dFf, set } = packed;
  const [widthOut, widthHidden] = [padded(dModel, set.panelWidth), padded(dFf, set.panelWidth)];
  const xPtr = put(layer, x);
  const routing = routeOn(layer, xPtr, x.rows);
  checkRouting(routing);
  const plan = dispatch(layer, routing, inputs, config);

  const busy = busyExperts(plan, packed);
  const mostGiven = largestMagnitude(busy.map(({ numGiven }) => numGiven));
  const hiddenPtr = memory.allocate(4 * mostGiven * widthHidden);
  const hidden = putAddresses(
    layer,
    hiddenPtr,
    widthHidden,
    Int32Array.from({ length: mostGiven }, (_, i) => i),
  );
  const yPtr = memory.allocateZeros(4 * x.rows * widthOut);
  const xRows = putAddresses(layer, xPtr, dModel, plan.tokenIndex);
  const targets = putAddresses(layer, yPtr, widthOut, plan.tokenIndex);
  const weightsPtr = put(layer, { rows: plan.tokenIndex.length, cols: 1, data: plan.combineWeight });
  for (const { expert, first, numGiven: count } of busy) {
    const [from, to, weights] = [xRows, targets, weightsPtr].map(ptr => ptr + 4 * first);
    const calls = [
      ...hiddenRows(packed, expert, { count, from, to: hidden }, hiddenPtr, config),
      product(packed, expert.down, { count, from: hidden, to, weights }, Finish.ADD_WEIGHTED),
    ];
    for (const call of calls) perform(kernels, call);
  }
  return { y: take(layer, yPtr, x.rows, dModel, widthOut), plan };
}
