/** The layer on threads: its three products as loops, with decisions in between; the bits of `runLayer`. */
import { largestMagnitude } from '../matrix.js';
import type { Config, Matrix, RoutingInputs } from '../types.js';
import { checkRouting } from '../validate.js';
import type { Memory } from './memory.js';
import { encode, encodedRows, expertMemory, hiddenFrom, hiddenRows, product, scratchBytes } from './products.js';
import { busyExperts, dispatch, type OpenLayer, routeScratch, routeTokens } from './stages.js';
import type { Call, Loop, Task } from './tasks.js';
import { begin, put, putAddresses, type Rows, take } from './workspace.js';

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
): Generator<Loop, Matrix, void> {
  begin(layer);
  const { memory, packed } = layer;
  const { dModel, set, numLogits, routerPtr } = packed;
  const numTokens = x.rows;
  const given: Rows = { ptr: put(layer, x), stride: dModel };
  const encoded = encodedRows(layer, given, numTokens, dModel);

  const [logitsPtr, probsPtr] = [1, 2].map(() => memory.allocate(4 * numTokens * numLogits));
  const byTokens = cut(numTokens, ROUTER_ROWS);
  const routerScratch = each(memory, numLogits > 0 ? routeScratch(packed) : 0, byTokens.length);
  const ofTokens = byTokens.map(([first, count], i): Task => {
    const own = (rows: Rows): Rows => ({ ...rows, ptr: rows.ptr + 4 * first * rows.stride });
    const quantized = encode(packed, own(given), count, dModel, own(encoded));
    if (numLogits === 0) return quantized;
    const [logits, probs] = [logitsPtr, probsPtr].map(ptr => ptr + 4 * first * numLogits);
    return [
      // biome-ignore format: the arguments of one call on one line
      ['route_f32', own(given).ptr, routerPtr, logits, routerScratch(i), count, dModel, numLogits, routeTokens(packed)],
      ['softmax_f32', logits, probs, count, numLogits],
      ...quantized,
    ];
  });
  if (numLogits > 0 || encoded !== given) yield ofTokens;
  const view = (ptr: number) => ({ rows: numTokens, cols: numLogits, data: memory.floats(ptr, numTokens * numLogits) });
  const routing = { logits: view(logitsPtr), probs: view(probsPtr) };
  checkRouting(routing);
  const plan = dispatch(layer, routing, inputs, config);

  const busy = busyExperts(plan, packed);
  const mostGiven = largestMagnitude(busy.map(({ numGiven }) => numGiven));
  const rows = expertMemory(layer, plan.tokenIndex.length, mostGiven);
  const widthOut = rows.out.stride;
  const yPtr = memory.allocateZeros(4 * numTokens * widthOut);
  const xList = putAddresses(layer, encoded, plan.tokenIndex);
  const targets = putAddresses(layer, { ptr: yPtr, stride: widthOut }, plan.tokenIndex);
  const weightsPtr = put(layer, { rows: plan.tokenIndex.length, cols: 1, data: plan.combineWeight });
  const byRows = busy.flatMap(({ expert, first, numGiven }) =>
    cut(numGiven, EXPERT_ROWS).map(([skipped, count]) => ({ expert, first: first + skipped, count })),
  );
  const rowsScratch = each(memory, scratchBytes(packed), byRows.length);
  yield byRows.map(({ expert, first, count }, i): Task => {
    return hiddenRows(packed, expert, count, xList + 4 * first, hiddenFrom(rows, first), rowsScratch(i), config);
  });

  const numPanels = widthOut / set.panelWidth;
  const byPanels = cut(numPanels, Math.ceil(numPanels / (TASKS_PER_THREAD * numThreads)));
  const panelsScratch = each(memory, scratchBytes(packed), byPanels.length);
  yield byPanels.map(([panel, count], i): Task => {
    const [firstColumn, lastColumn] = [panel * set.panelWidth, (panel + count) * set.panelWidth];
    return busy.flatMap(({ expert, first, numGiven }): Call[] => {
      const [from, to, weights] = [rows.encoded.list, targets, weightsPtr].map(ptr => ptr + 4 * first);
      return [
        product(packed, expert.down, numGiven, from, rows.out.list, panelsScratch(i), [panel, panel + count]),
        ['combine_f32', rows.out.list, weights, to, numGiven, firstColumn, lastColumn],
      ];
    });
  });
  return take(layer, yPtr, numTokens, dModel, widthOut);
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
