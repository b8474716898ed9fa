/** The layer in loops of tasks, for one thread or many, with decisions in between: the bits of `layerAlone`. */
import type { Config, Matrix, Routing, RoutingInputs } from '../types.js';
import { checkRouting } from '../validate.js';
import { addRows, giveRows, newSums, piecesOf, runRows } from './expert-rows.js';
import { busyExperts, dispatch, type LayerResult, numSkipped, type OpenLayer } from './open-layer.js';
import type { PackedWeights } from './packed-weights.js';
import { reserve } from './products.js';
import { cut, type Loop, split, type Task } from './tasks.js';
import { each, put, type Rows, take } from './workspace.js';

/** At most so many rows for a task of the router: whole tiles. */
const ROUTER_ROWS = 24;

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
  const busy = busyExperts(plan.expertOffsets, layer.packed);
  const range = { first: numSkipped(plan, layer.packed), end: plan.tokenIndex.length };
  reserve(layer, plan, range.end - range.first, piecesOf(busy).length);
  const xList = yield* giveRows(layer, given, plan);
  const { out } = yield* runRows(layer, xList, busy, range, config);
  const sums = newSums(layer, x.cols, plan);
  yield* addRows(sums, out.list, range);
  return { y: take(layer, sums.y.ptr, x.rows, x.cols, sums.y.stride), plan };
}

/** Begins a call: x in memory, and room for its routing. */
export function beginWith(layer: OpenLayer, x: Matrix): Rows {
  const { memory, packed } = layer;
  memory.begin();
  const scratch = Math.ceil(x.rows / ROUTER_ROWS) * routeScratch(packed);
  memory.reserve(4 * x.rows * (x.cols + 2 * packed.numLogits) + scratch);
  return { ptr: put(layer, x), stride: x.cols };
}

/** Logits and probabilities: views of memory, good until something is allocated. */
export function* routeLoop(layer: OpenLayer, x: Rows, numTokens: number): Generator<Loop, Routing, void> {
  const router = routerRows(layer, x, numTokens);
  yield router.loop;
  return routingOf(layer, router, numTokens);
}

/** The same of a router whose loop is done. */
export function routingOf({ memory, packed }: OpenLayer, { logits, probs }: RouterRows, numTokens: number): Routing {
  const { numLogits } = packed;
  const view = (ptr: number) => ({ rows: numTokens, cols: numLogits, data: memory.floats(ptr, numTokens * numLogits) });
  return { logits: view(logits), probs: view(probs) };
}

/** Where logits and probabilities will be, [T, E], once the loop is done. */
export interface RouterRows {
  readonly logits: number;
  readonly probs: number;
  readonly loop: Loop;
}

/** By tokens. */
export function routerRows(layer: OpenLayer, x: Rows, numTokens: number): RouterRows {
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
  return { logits: logitsPtr, probs: probsPtr, loop: split(tasks, numTokens * numLogits * dModel) };
}

/** Bytes that `route_f32` needs beside its arguments. */
function routeScratch({ dModel }: PackedWeights): number {
  return 32 * dModel + 256;
}

/** Tokens that its tiles hold. */
function routeTokens({ set }: PackedWeights): number {
  return set.panelWidth === 16 ? 4 : 2;
}
