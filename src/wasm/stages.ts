/** The stages of a layer on the kernels: each alone for a trace, and all in one for speed, with the same bits. */
import { largestMagnitude } from '../matrix.js';
import { routers } from '../selection/routers.js';
import type { Config, DispatchPlan, ExpertRows, Matrix, Routing, RoutingInputs } from '../types.js';
import { checkRouting } from '../validate.js';
import type { PackedWeights } from './packed-weights.js';
import { encode, encodedRows, expertMemory, hiddenFrom, hiddenRows, product, scratchBytes } from './products.js';
import { fastDispatch } from './select.js';
import { type Call, perform } from './tasks.js';
import { begin, put, putAddresses, type Rows, take, type Workspace } from './workspace.js';

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
  const { memory, packed } = layer;
  const { dModel, dFf } = packed;
  const numRows = plan.tokenIndex.length;
  const given: Rows = { ptr: put(layer, x), stride: dModel };
  const encoded = encodedRows(layer, given, x.rows, dModel);
  const xList = putAddresses(layer, encoded, plan.tokenIndex);
  const rows = expertMemory(layer, numRows, numRows);
  const scratchPtr = memory.allocate(scratchBytes(packed));
  for (const part of [rows.hidden, rows.out]) memory.floats(part.ptr, numRows * part.stride).fill(0);

  performAll(layer, encode(packed, given, x.rows, dModel, encoded));
  for (const { expert, first, numGiven } of busyExperts(plan, packed)) {
    const own = hiddenFrom(rows, first);
    const calls = hiddenRows(packed, expert, numGiven, xList + 4 * first, own, scratchPtr, config);
    const out = rows.out.list + 4 * first;
    performAll(layer, [...calls, product(packed, expert.down, numGiven, own.encoded.list, out, scratchPtr)]);
  }
  return {
    hidden: take(layer, rows.hidden.ptr, numRows, dFf, rows.hidden.stride),
    out: take(layer, rows.out.ptr, numRows, dModel, rows.out.stride),
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
  const inOrder = Int32Array.from(plan.tokenIndex, (_, i) => i);
  const outList = putAddresses(space, { ptr: put(space, expertOut), stride: cols }, inOrder);
  const weightsPtr = put(space, { rows: numRows, cols: 1, data: plan.combineWeight });
  const yPtr = memory.allocateZeros(4 * numTokens * cols);
  const targets = putAddresses(space, { ptr: yPtr, stride: cols }, plan.tokenIndex);
  kernels.combine_f32(outList, weightsPtr, targets, numRows, 0, cols);
  return take(space, yPtr, numTokens, cols, cols);
}

/** All stages in one, x to y: the same bits as one after another. */
export function runLayer(layer: OpenLayer, x: Matrix, inputs: RoutingInputs, config: Config): Matrix {
  begin(layer);
  const { memory, packed } = layer;
  const { dModel } = packed;
  const given: Rows = { ptr: put(layer, x), stride: dModel };
  const routing = routeOn(layer, given.ptr, x.rows);
  checkRouting(routing);
  const plan = dispatch(layer, routing, inputs, config);

  const busy = busyExperts(plan, packed);
  const mostGiven = largestMagnitude(busy.map(({ numGiven }) => numGiven));
  const rows = expertMemory(layer, mostGiven, mostGiven);
  const scratchPtr = memory.allocate(scratchBytes(packed));
  const encoded = encodedRows(layer, given, x.rows, dModel);
  const xList = putAddresses(layer, encoded, plan.tokenIndex);
  const widthOut = rows.out.stride;
  const yPtr = memory.allocateZeros(4 * x.rows * widthOut);
  const targets = putAddresses(layer, { ptr: yPtr, stride: widthOut }, plan.tokenIndex);
  const weightsPtr = put(layer, { rows: plan.tokenIndex.length, cols: 1, data: plan.combineWeight });

  performAll(layer, encode(packed, given, x.rows, dModel, encoded));
  for (const { expert, first, numGiven } of busy) {
    performAll(layer, [
      ...hiddenRows(packed, expert, numGiven, xList + 4 * first, rows, scratchPtr, config),
      product(packed, expert.down, numGiven, rows.encoded.list, rows.out.list, scratchPtr),
      ['combine_f32', rows.out.list, weightsPtr + 4 * first, targets + 4 * first, numGiven, 0, dModel],
    ]);
  }
  return take(layer, yPtr, x.rows, dModel, widthOut);
}

function performAll({ kernels }: Workspace, calls: readonly Call[]): void {
  for (const call of calls) perform(kernels, call);
}
