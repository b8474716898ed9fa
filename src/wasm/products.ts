/** Products, and FFNs made of them, as kernel calls; and the memory of their rows. */
import type { ActivationName } from '../types.js';
import { type Storage, stepsOf } from './formats.js';
import type { Open } from './held.js';
import { align } from './memory.js';
import type { FfnShape, PackedExpert, PackedLinear } from './packed-weights.js';
import { padded } from './panels.js';
import { type Call, cut, type Loop, split, type Task } from './tasks.js';
import { from, type ListedRows, newRows, part, type Rows } from './workspace.js';

/** At most so many rows for a task: whole tiles of 2, 3, 4, 6 or 8 rows. */
export const TASK_ROWS = 48;

/** Where FFNs put their rows: experts all of them side by side, or each over those of the one before. */
export interface FfnMemory {
  /** σ(W1 x + b1), or the gated form, before it is encoded. */
  readonly hidden: ListedRows;
  /** W1 x + b1, where the gated form needs it. */
  readonly factors: ListedRows | undefined;
  /** The same as the second product reads it: codes with int8, else `hidden` itself. */
  readonly encoded: ListedRows;
  /** W2 h + b2. */
  readonly out: ListedRows;
}

export function ffnMemory(layer: Open<FfnShape>, numRows: number): FfnMemory {
  const { dModel, dFf, set, isGated } = layer.packed;
  const [widthHidden, widthOut] = [padded(dFf, set.panelWidth), padded(dModel, set.panelWidth)];
  const hidden = newRows(layer, numRows, widthHidden);
  const factors = isGated ? newRows(layer, numRows, widthHidden) : undefined;
  return {
    hidden,
    factors,
    encoded: encodedRows(layer, hidden, numRows, dFf),
    out: newRows(layer, numRows, widthOut),
  };
}

/**
 * Memory for so many rows of experts at once, which is most of what a call needs: so that a call whose memory
 * cannot be had fails before its experts begin, and says how much it was.
 */
export function reserve({ memory, packed }: Open<FfnShape>, numAtOnce: number, numTasks = 1): void {
  const { dModel, dFf, set, isGated } = packed;
  const hidden = (isGated ? 2 : 1) * (4 * padded(dFf, set.panelWidth) + 4) + codeBytes(packed, dFf);
  const out = 4 * padded(dModel, set.panelWidth) + 4;
  memory.reserve(numAtOnce * (hidden + out) + numTasks * ffnScratchBytes(packed));
}

/** The same from row `first` on. */
export function rowsFrom({ hidden, factors, encoded, out }: FfnMemory, first: number): FfnMemory {
  return {
    hidden: part(hidden, first),
    factors: factors && part(factors, first),
    encoded: part(encoded, first),
    out: part(out, first),
  };
}

/** Of a row of k inputs and its address, where products read codes: with int8. */
export function codeBytes({ format, layout }: Storage, k: number): number {
  return format === 'int8' ? 4 * (stepsOf(k, layout) + 2) + 4 : 0;
}

/** Rows as products read them: with int8, new rows for the codes of k inputs, a scale and a zero point; else the same. */
export function encodedRows<R extends Rows>(layer: Open<Storage>, rows: R, count: number, k: number): R | ListedRows {
  const { format, layout } = layer.packed;
  return format === 'int8' ? newRows(layer, count, stepsOf(k, layout) + 2) : rows;
}

/** Encodes `count` rows of k floats, where that is to be done. */
export function encode({ format }: Storage, rows: Rows, count: number, k: number, to: Rows): Call[] {
  return format === 'int8' ? [['quantize_i7', rows.ptr, rows.stride, count, k, to.ptr]] : [];
}

/** `count` rows of k floats, encoded. */
export function* encodeLoop(layer: Open<Storage>, rows: Rows, count: number, k: number): Generator<Loop, Rows, void> {
  const encoded = encodedRows(layer, rows, count, k);
  if (encoded === rows) return rows;
  const tasks = cut(count, TASK_ROWS).map(([first, numRows]): Task => {
    return encode(layer.packed, from(rows, first), numRows, k, from(encoded, first));
  });
  yield split(tasks, count * k);
  return encoded;
}

/** The same for both products of an FFN. */
export function ffnScratchBytes(packed: FfnShape): number {
  return scratchBytes(packed, Math.max(packed.dModel, packed.dFf));
}

/** Bytes that a product of so many inputs at most needs besides its arguments: a panel in float32, for halves to be widened to. */
export function scratchBytes({ format, set }: Storage, numInputs: number): number {
  const isHalf = format === 'f16' || format === 'bf16';
  return isHalf ? align(4 * set.panelWidth * (numInputs + 1)) : 0;
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

/** An FFN's rows, hidden and out; `xList`: the addresses of the (encoded) rows that it is given. */
export function ffnCalls(
  packed: FfnShape,
  { up, gate, down }: PackedExpert,
  count: number,
  xList: number,
  { hidden, factors, encoded, out }: FfnMemory,
  scratchPtr: number,
  activation: ActivationName,
): Call[] {
  const length = count * hidden.stride;
  const calls: Call[] = [
    product(packed, gate ?? up, count, xList, hidden.list, scratchPtr),
    ['activate_f32', hidden.ptr, hidden.ptr, length, ACTIVATION_ID[activation]],
  ];
  if (factors) {
    calls.push(product(packed, up, count, xList, factors.list, scratchPtr), [
      'multiply_f32',
      factors.ptr,
      hidden.ptr,
      length,
    ]);
  }
  return [
    ...calls,
    ...encode(packed, hidden, count, packed.dFf, encoded),
    product(packed, down, count, encoded.list, out.list, scratchPtr),
  ];
}

/** A product over `count` rows, in some of the outputs' panels or all; lists of the rows' addresses. */
export function product(
  { set, format }: Storage,
  { panelsPtr, steps, numPanels }: PackedLinear,
  count: number,
  fromList: number,
  toList: number,
  scratchPtr: number,
  [firstPanel, lastPanel] = [0, numPanels],
): Call {
  const variant = format === 'int8' && set.int8Dot ? 'int8_dot' : format;
  const kernel = `product_${variant}_${set.panelWidth}` as const;
  return [kernel, panelsPtr, steps, fromList, count, toList, firstPanel, lastPanel, set.tileRows, scratchPtr];
}
