/** The layer on threads: its three products as loops, with decisions in between; the bits of `runLayer`. */
import type { Config, Matrix, RoutingInputs } from '../types.js';
import { checkRouting } from '../validate.js';
import { Finish } from './kernels.js';
import { padded } from './panels.js';
import { hiddenRows, product } from './products.js';
import { busyExperts, dispatch, type LayerResult, type OpenLayer, routeScratch, routeTokens } from './stages.js';
import type { Loop, Task } from './tasks.js';
import { begin, put, putAddresses, take } from './workspace.js';

/** Rows of a task of the router, and of an expert's first product: whole tiles of 2, 3, 4, 6 or 8 rows. */
const ROUTER_ROWS = 24;
const EXPERT_ROWS = 48;
/** Tasks of the second product for each thread: who is late takes fewer. */
const TASKS_PER_THREAD = 4;

/**
 * One call. A row's bits depend neither on the rows beside it nor on the columns, so where loops are cut is a matter of
 * time alone; and in each column of y the experts are added in order, by whoever has that column.
 *
 * Loops   logits and probabilities, by tokens; hidden rows of all kept pairs, by expert and rows; y, by columns
 * @throws as `runLayer` does
 */
export function* layerLoops(
  layer: OpenLayer,
  x: Matrix,
  inputs: RoutingInputs,
  config: Config,
  numThreads: number,
): Generator<Loop, LayerResult, void> {
  begin(layer);
  const { memory, packed } = layer;
  const { dModel, dFf, set, numLogits, routerPtr } = packed;
  const [widthOut, widthHidden] = [padded(dModel, set.panelWidth), padded(dFf, set.panelWidth)];
  const numTokens = x.rows;
  const xPtr = put(layer, x);

  const [logitsPtr, probsPtr] = [1, 2].map(() => memory.allocate(4 * numTokens * numLogits));
  if (numLogits > 0) {
    const scratchBytes = routeScratch(packed);
    const scratchPtr = memory.allocate(scratchBytes * Math.ceil(numTokens / ROUTER_ROWS));
    const scratchAt = (token: number) => scratchPtr + scratchBytes * (token / ROUTER_ROWS);
    yield cut(numTokens, ROUTER_ROWS).map(([first, count]): Task => {
      const [logits, probs] = [logitsPtr, probsPtr].map(ptr => ptr + 4 * first * numLogits);
      return [
        // biome-ignore format: the arguments of one call on one line
        ['route_f32', xPtr + 4 * first * dModel, routerPtr, logits, scratchAt(first), count, dModel, numLogits, routeTokens(packed)],
        ['softmax_f32', logits, probs, count, numLogits],
      ];
    });
  }
  const view = (ptr: number) => ({ rows: numTokens, cols: numLogits, data: memory.floats(ptr, numTokens * numLogits) });
  const routing = { logits: view(logitsPtr), probs: view(probsPtr) };
  checkRouting(routing);
  const plan = dispatch(layer, routing, inputs, config);

  const busy = busyExperts(plan, packed);
  const hiddenPtr = memory.allocate(4 * plan.tokenIndex.length * widthHidden);
  const yPtr = memory.allocateZeros(4 * numTokens * widthOut);
  const inOrder = Int32Array.from(plan.tokenIndex, (_, i) => i);
  const hidden = putAddresses(layer, hiddenPtr, widthHidden, inOrder);
  const xRows = putAddresses(layer, xPtr, dModel, plan.tokenIndex);
  const targets = putAddresses(layer, yPtr, widthOut, plan.tokenIndex);
  const weightsPtr = put(layer, { rows: plan.tokenIndex.length, cols: 1, data: plan.combineWeight });
  yield busy.flatMap(({ expert, first, numGiven }) =>
    cut(numGiven, EXPERT_ROWS).map(([skipped, count]): Task => {
      const row = first + skipped;
      const rows = { count, from: xRows + 4 * row, to: hidden + 4 * row };
      return hiddenRows(packed, expert, rows, hiddenPtr + 4 * row * widthHidden, config);
    }),
  );

  const numPanels = widthOut / set.panelWidth;
  yield cut(numPanels, Math.ceil(numPanels / (TASKS_PER_THREAD * numThreads))).map(([panel, count]): Task => {
    return busy.map(({ expert, first, numGiven }) => {
      const [from, to, weights] = [hidden, targets, weightsPtr].map(ptr => ptr + 4 * first);
      const rows = { count: numGiven, from, to, weights };
      return product(packed, expert.down, rows, Finish.ADD_WEIGHTED, [panel, panel + count]);
    });
  });
  return { y: take(layer, yPtr, numTokens, dModel, widthOut), plan };
}

/** 0 … n in pieces of `size`, the last one smaller: where each begins, and how many it has. */
function cut(n: number, size: number): [number, number][] {
  return Array.from({ length: Math.ceil(n / size) }, (_, i) => [i * size, Math.min(size, n - i * size)]);
}
