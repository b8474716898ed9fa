/** The rows of a batch of bytes, in the memory of one call. */

import type { Open } from '../wasm/held.js';
import type { FfnShape } from '../wasm/packed-weights.js';
import { padded } from '../wasm/panels.js';
import { encode, encodedRows, type FfnMemory, ffnMemory, TASK_ROWS } from '../wasm/products.js';
import { type Call, cut, type Loop, split, type Task } from '../wasm/tasks.js';
import { from, type ListedRows, newRows, type Rows } from '../wasm/workspace.js';
import type { PackedModel } from './packed-model.js';

export interface Batch {
  readonly numRows: number;
  /** The residual stream: [n, d]. */
  readonly x: Rows;
  /** What is to be added to it before it is read again. */
  pending: Rows | undefined;
  /** A norm of it, and the same as products read it. */
  readonly normed: ListedRows;
  readonly normedCodes: ListedRows;
  readonly qkv: ListedRows;
  readonly attended: ListedRows;
  readonly attendedCodes: ListedRows;
  readonly projected: ListedRows;
  /** Of a dense FFN. */
  readonly dense: FfnMemory | undefined;
  /** Of an XMoE layer: [n, d]. */
  readonly y: Rows;
  /** Of the experts, on one thread: each over those of the one before. */
  readonly experts: FfnMemory | undefined;
}

export function newBatch(model: Open<PackedModel>, numRows: number, numThreads: number): Batch {
  const { config, set, layers } = model.packed;
  const { dModel } = config;
  const width = padded(dModel, set.panelWidth);
  const normed = newRows(model, numRows, dModel);
  const attended = newRows(model, numRows, dModel);
  const dense = layers.find(({ ffn }) => ffn.kind === 'dense')?.ffn;
  const moe = layers.find(({ ffn }) => ffn.kind === 'moe')?.ffn;
  return {
    numRows,
    x: newRows(model, numRows, dModel),
    pending: undefined,
    normed,
    normedCodes: encodedRows(model, normed, numRows, dModel),
    qkv: newRows(model, numRows, 3 * width),
    attended,
    attendedCodes: encodedRows(model, attended, numRows, dModel),
    projected: newRows(model, numRows, width),
    dense: dense && ffnMemory({ ...model, packed: dense }, numRows),
    y: newRows(model, numRows, dModel),
    experts: numThreads === 1 && moe ? ffnMemory({ ...model, packed: moe }, numRows) : undefined,
  };
}

/** Adds to x what is pending, and takes a norm of it; the codes too, where products read them. From row `firstRow` on. */
export function normLoop(model: Open<PackedModel>, batch: Batch, normPtr: number, firstRow = 0): Loop {
  const numRows = batch.numRows - firstRow;
  const tasks = cut(numRows, TASK_ROWS).map(([first, count]): Task => {
    return normCalls(model, batch, normPtr, firstRow + first, count);
  });
  return split(tasks, numRows * model.packed.config.dModel);
}

function normCalls(
  { packed }: Open<PackedModel>,
  { x, pending, normed, normedCodes }: Batch,
  normPtr: number,
  first: number,
  count: number,
): Call[] {
  const { dModel } = packed.config;
  const [xs, out] = [from(x, first), from(normed, first)];
  const add = pending ? from(pending, first) : { ptr: 0, stride: 0 };
  return [
    ['add_norm_f32', xs.ptr, xs.stride, add.ptr, add.stride, normPtr, out.ptr, out.stride, count, dModel],
    ...encode(packed, out, count, dModel, from(normedCodes, first)),
  ];
}

/** An FFN's workspace. */
export function over<Packed extends FfnShape>({ memory, kernels }: Open<PackedModel>, packed: Packed): Open<Packed> {
  return { memory, kernels, packed };
}
