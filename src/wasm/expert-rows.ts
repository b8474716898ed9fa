/** The rows of a call's experts: given from x, run by some experts after others, and added into y. */
import type { Config, DispatchPlan } from '../types.js';
import type { BusyExpert, OpenLayer } from './open-layer.js';
import { encodeLoop, type FfnMemory, ffnCalls, ffnMemory, ffnScratchBytes, rowsFrom, TASK_ROWS } from './products.js';
import { type Call, cut, type Loop, split, type Task } from './tasks.js';
import { each, put, putAddresses, type Rows, type Workspace } from './workspace.js';

/** Columns of y for a task: whole cache lines. */
const COMBINE_COLUMNS = 64;

/** The plan's rows of x, as products read them. @returns the list of their addresses */
export function* giveRows(layer: OpenLayer, x: Rows, plan: DispatchPlan): Generator<Loop, number, void> {
  const { dModel } = layer.packed;
  const { numTokens } = plan.selection;
  const encoded = yield* encodeLoop(layer, x, numTokens, dModel);
  return putAddresses(layer, encoded, plan.tokenIndex);
}

/** y [T, d], to which the experts' rows are added. */
export interface Sums {
  readonly y: Rows;
  readonly dModel: number;
  /** For each row of the plan, the address of its row of y, and its weight. */
  readonly targets: number;
  readonly weightsPtr: number;
}

/** Rows that are 0: new ones, if none are given. */
export function zeroRows({ memory }: Workspace, numRows: number, dModel: number, given?: Rows): Rows {
  const numFloats = numRows * dModel;
  if (!given) return { ptr: memory.allocateZeros(4 * numFloats), stride: dModel };
  memory.floats(given.ptr, numFloats).fill(0);
  return given;
}

/** Begins with 0 in y: new rows, if it is given none. */
export function newSums(space: Workspace, dModel: number, plan: DispatchPlan, given?: Rows): Sums {
  const { tokenIndex, combineWeight, selection } = plan;
  const y = zeroRows(space, selection.numTokens, dModel, given);
  const targets = putAddresses(space, y, tokenIndex);
  return { y, dModel, targets, weightsPtr: put(space, { rows: tokenIndex.length, cols: 1, data: combineWeight }) };
}

/** On one thread: expert by expert, whose rows stay in its caches, each over those of the one before, in `rows`. */
export function* addAlone(
  layer: OpenLayer,
  xList: number,
  busy: readonly BusyExpert[],
  rows: FfnMemory,
  sums: Sums,
  config: Config,
): Generator<Loop, void, void> {
  const { memory, packed } = layer;
  const scratchPtr = memory.allocate(ffnScratchBytes(packed));
  for (const { index, first, numGiven } of busy) {
    yield [
      [
        ...ffnCalls(packed, packed.experts[index], numGiven, xList + 4 * first, rows, scratchPtr, config.activation),
        addCall(sums, rows.out.list, { first, end: first + numGiven }, [0, sums.dModel]),
      ],
    ];
  }
}

/** Rows of the plan, from `first` up to `end`. */
export interface Range {
  readonly first: number;
  readonly end: number;
}

/** What these experts make of their rows, by expert and rows: those of the range side by side, 0 before the first expert's. */
export function* runRows(
  layer: OpenLayer,
  xList: number,
  busy: readonly BusyExpert[],
  { first: firstRow, end }: Range,
  config: Config,
): Generator<Loop, FfnMemory, void> {
  const { memory, packed } = layer;
  const { dModel, dFf } = packed;
  const rows = ffnMemory(layer, end - firstRow);
  const numEmpty = (busy[0]?.first ?? end) - firstRow;
  for (const { ptr, stride } of [rows.hidden, rows.out]) memory.floats(ptr, numEmpty * stride).fill(0);
  const pieces = piecesOf(busy);
  const scratch = each(memory, ffnScratchBytes(packed), pieces.length);
  const tasks = pieces.map(({ index, first, count }, i): Task => {
    const own = rowsFrom(rows, first - firstRow);
    return ffnCalls(packed, packed.experts[index], count, xList + 4 * first, own, scratch(i), config.activation);
  });
  yield split(tasks, (end - firstRow) * dModel * dFf);
  return rows;
}

/** Of each expert pieces of nearly equal size, the longest first, so that threads end at about the same time. */
export function piecesOf(busy: readonly BusyExpert[]) {
  return busy
    .flatMap(({ index, first, numGiven }) => {
      const most = Math.ceil(numGiven / Math.ceil(numGiven / TASK_ROWS));
      return cut(numGiven, most).map(([skipped, count]) => ({ index, first: first + skipped, count }));
    })
    .sort((a, b) => b.count - a.count);
}

/** Adds rows of the plan, whose addresses are listed, to y: by columns. */
export function* addRows(sums: Sums, outList: number, range: Range): Generator<Loop, void, void> {
  const tasks = cut(sums.dModel, COMBINE_COLUMNS).map(([column, count]): Task => {
    return [addCall(sums, outList, range, [column, column + count])];
  });
  yield split(tasks, (range.end - range.first) * sums.dModel);
}

/** In some columns, a row after the other. */
function addCall(
  { targets, weightsPtr }: Sums,
  outList: number,
  { first, end }: Range,
  [firstColumn, lastColumn]: readonly [number, number],
): Call {
  return ['combine_f32', outList, weightsPtr + 4 * first, targets + 4 * first, end - first, firstColumn, lastColumn];
}
