/** The layer in loops of tasks, for one thread or many, with decisions in between: the bits of `layerAlone`. */
import type { Config, DispatchPlan, Matrix, Routing, RoutingInputs } from '../types.js';
import { checkRouting } from '../validate.js';
import type { LayerResult } from './layer-alone.js';
import type { Memory } from './memory.js';
import { busyExperts, dispatch, numSkipped, type OpenLayer } from './open-layer.js';
import type { PackedWeights } from './packed-weights.js';
import {
  type ExpertMemory,
  encode,
  encodedRows,
  expertMemory,
  hiddenFrom,
  hiddenRows,
  product,
  reserve,
  scratchBytes,
} from './products.js';
import type { Loop, Task } from './tasks.js';
import { begin, part, put, putAddresses, type Rows, take, type Workspace } from './workspace.js';

/** At most so many rows for a task of the router, and of an expert: whole tiles of 2, 3, 4, 6 or 8 rows. */
const ROUTER_ROWS = 24;
const EXPERT_ROWS = 48;
/** Columns of y for a task: whole cache lines. */
const COMBINE_COLUMNS = 64;
/** Multiply-adds that are done sooner than another thread is there to help. */
const FEW = 2 ** 20;

/**
 * One call. A row's bits depend neither on the rows beside it nor on the columns, so where loops are cut is a matter of
 * time alone; and in each column of y the experts are added in order, by whoever has that column.
 *
 * @throws as `layerAlone` does
 */
export function* layerLoops(
  layer: OpenLayer,
  x: Matrix,
  inputs: RoutingInputs,
  config: Config,
): Generator<Loop, LayerResult, void> {
  const given = beginWith(layer, x);
  const routing = yield* routeLoop(layer, given, x.rows);
  checkRouting(routing);
  const plan = dispatch(layer, routing, inputs, config);
  const { out } = yield* expertLoops(layer, given, plan, config);
  const y = yield* combineLoop(layer, out.list, x.cols, plan);
  return { y: take(layer, y.ptr, x.rows, x.cols, y.stride), plan };
}

/** Begins a call: x in memory, and room for its routing. */
export function beginWith(layer: OpenLayer, x: Matrix): Rows {
  begin(layer);
  const { memory, packed } = layer;
  const scratch = Math.ceil(x.rows / ROUTER_ROWS) * routeScratch(packed);
  memory.reserve(4 * x.rows * (x.cols + 2 * packed.numLogits) + scratch);
  return { ptr: put(layer, x), stride: x.cols };
}

/** Logits and probabilities, by tokens: views of memory, good until something is allocated. */
export function* routeLoop(layer: OpenLayer, x: Rows, numTokens: number): Generator<Loop, Routing, void> {
  const { memory, packed } = layer;
  const { dModel, numLogits, routerPtr } = packed;
  const [logitsPtr, probsPtr] = [1, 2].map(() => memory.allocate(4 * numTokens * numLogits));
  const pieces = numLogits > 0 ? cut(numTokens, ROUTER_ROWS) : [];
  const scratch = each(memory, routeScratch(packed), pieces.length);
  const tasks = pieces.map(([first, count], i): Task => {
    const [logits, probs] = [logitsPtr, probsPtr].map(ptr => ptr + 4 * first * numLogits);
    const xPtr = x.ptr + 4 * first * x.stride;
    return [
      ['route_f32', xPtr, routerPtr, logits, scratch(i), count, dModel, numLogits, routeTokens(packed)],
      ['softmax_f32', logits, probs, count, numLogits],
    ];
  });
  yield split(tasks, numTokens * numLogits * dModel);
  const view = (ptr: number) => ({ rows: numTokens, cols: numLogits, data: memory.floats(ptr, numTokens * numLogits) });
  return { logits: view(logitsPtr), probs: view(probsPtr) };
}

/** What the experts make of the rows they were given, by expert and rows: all of it side by side, in plan order. */
export function* expertLoops(
  layer: OpenLayer,
  x: Rows,
  plan: DispatchPlan,
  config: Config,
): Generator<Loop, ExpertMemory, void> {
  const { memory, packed } = layer;
  const { dModel, dFf } = packed;
  const { numTokens } = plan.selection;
  const numRows = plan.tokenIndex.length;
  // The longest first, so that threads end at about the same time.
  const pieces = busyExperts(plan, packed)
    .flatMap(({ expert, first, numGiven }) => {
      const most = Math.ceil(numGiven / Math.ceil(numGiven / EXPERT_ROWS));
      return cut(numGiven, most).map(([skipped, count]) => ({ expert, first: first + skipped, count }));
    })
    .sort((a, b) => b.count - a.count);
  reserve(layer, plan, numRows, pieces.length);

  const encoded = encodedRows(layer, x, numTokens, dModel);
  const xList = putAddresses(layer, encoded, plan.tokenIndex);
  const rows = expertMemory(layer, numRows, numRows);
  for (const { ptr, stride } of [rows.hidden, rows.out]) memory.floats(ptr, numSkipped(plan, packed) * stride).fill(0);
  const encoding = cut(numTokens, EXPERT_ROWS).map(([first, count]) => {
    return encode(packed, from(x, first), count, dModel, from(encoded, first));
  });
  yield split(
    encoding.filter(({ length }) => length > 0),
    numTokens * dModel,
  );

  const scratch = each(memory, scratchBytes(packed), pieces.length);
  const tasks = pieces.map(({ expert, first, count }, i): Task => {
    const own = hiddenFrom(rows, first);
    return [
      ...hiddenRows(packed, expert, count, xList + 4 * first, own, scratch(i), config),
      product(packed, expert.down, count, own.encoded.list, part(rows.out, first).list, scratch(i)),
    ];
  });
  yield split(tasks, numRows * dModel * dFf);
  return rows;
}

/** y [T, d], by columns. */
export function* combineLoop(
  space: Workspace,
  outList: number,
  dModel: number,
  { tokenIndex, combineWeight, selection: { numTokens } }: DispatchPlan,
): Generator<Loop, Rows, void> {
  const numRows = tokenIndex.length;
  const y: Rows = { ptr: space.memory.allocateZeros(4 * numTokens * dModel), stride: dModel };
  const targets = putAddresses(space, y, tokenIndex);
  const weightsPtr = put(space, { rows: numRows, cols: 1, data: combineWeight });
  const tasks = cut(dModel, COMBINE_COLUMNS).map(([first, count]): Task => {
    return [['combine_f32', outList, weightsPtr, targets, numRows, first, first + count]];
  });
  yield split(tasks, numRows * dModel);
  return y;
}

/** Tasks to share, or one of them all where there is too little to do. */
function split(tasks: readonly Task[], multiplyAdds: number): Loop {
  return multiplyAdds < FEW ? [tasks.flat()] : tasks;
}

/** Bytes that `route_f32` needs beside its arguments. */
function routeScratch({ dModel }: PackedWeights): number {
  return 32 * dModel + 256;
}

/** Tokens that its tiles hold. */
function routeTokens({ set }: PackedWeights): number {
  return set.panelWidth === 16 ? 4 : 2;
}

/** The rows from `first` on. */
function from({ ptr, stride }: Rows, first: number): Rows {
  return { ptr: ptr + 4 * first * stride, stride };
}

/** So many bytes for each of `count` tasks: where those of task i are. */
function each(memory: Memory, numBytes: number, count: number): (i: number) => number {
  const ptr = memory.allocate(numBytes * count);
  return i => ptr + numBytes * i;
}

/** 0 … n in pieces of `size`, the last one smaller: where each begins, and how many it has. */
function cut(n: number, size: number): [number, number][] {
  return Array.from({ length: Math.ceil(n / size) }, (_, i) => [i * size, Math.min(size, n - i * size)]);
}
