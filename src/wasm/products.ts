/** The experts' products as kernel calls, and the memory of their rows. */
import type { ActivationName, Config, DispatchPlan } from '../types.js';
import { stepsOf } from './formats.js';
import { align } from './memory.js';
import type { OpenLayer } from './open-layer.js';
import type { PackedExpert, PackedLinear, PackedWeights } from './packed-weights.js';
import { padded } from './panels.js';
import type { Call } from './tasks.js';
import { type ListedRows, newRows, part, type Rows } from './workspace.js';

/** Where experts put their rows: all of them side by side, or each over those of the one before. */
export interface ExpertMemory {
  /** σ(W1 x + b1), or the gated form, before it is encoded. */
  readonly hidden: ListedRows;
  /** W1 x + b1, where the gated form needs it. */
  readonly factors: ListedRows | undefined;
  /** The same as the second product reads it: codes with int8, else `hidden` itself. */
  readonly encoded: ListedRows;
  /** W2 h + b2. */
  readonly out: ListedRows;
}

export function expertMemory(layer: OpenLayer, numHidden: number, numOut: number): ExpertMemory {
  const { dModel, dFf, set, experts } = layer.packed;
  const [widthHidden, widthOut] = [padded(dFf, set.panelWidth), padded(dModel, set.panelWidth)];
  const hidden = newRows(layer, numHidden, widthHidden);
  const factors = experts[0]?.gate && newRows(layer, numHidden, widthHidden);
  return {
    hidden,
    factors,
    encoded: encodedRows(layer, hidden, numHidden, dFf),
    out: newRows(layer, numOut, widthOut),
  };
}

/**
 * Memory for what a call needs after its decisions, with so many rows of experts at once: so that a call whose memory
 * cannot be had fails before its experts begin, and says how much it was.
 */
export function reserve({ memory, packed }: OpenLayer, plan: DispatchPlan, numAtOnce: number, numTasks = 1): void {
  const { dModel, dFf, set, format, layout, experts } = packed;
  const { numTokens } = plan.selection;
  const codes = (k: number) => (format === 'int8' ? 4 * (stepsOf(k, layout) + 2) + 4 : 0);
  const hidden = (experts[0].gate ? 2 : 1) * (4 * padded(dFf, set.panelWidth) + 4) + codes(dFf);
  const out = 4 * padded(dModel, set.panelWidth) + 4;
  const perToken = codes(dModel) + 4 * dModel;
  const lists = 3 * 4 * plan.tokenIndex.length;
  memory.reserve(numAtOnce * (hidden + out) + numTokens * perToken + lists + numTasks * scratchBytes(packed));
}

/** The same from row `first` on, but for `out`. */
export function hiddenFrom({ hidden, factors, encoded, out }: ExpertMemory, first: number): ExpertMemory {
  return { hidden: part(hidden, first), factors: factors && part(factors, first), encoded: part(encoded, first), out };
}

/** Rows as products read them: with int8, new rows for the codes of k inputs, a scale and a zero point; else the same. */
export function encodedRows<R extends Rows>(layer: OpenLayer, rows: R, count: number, k: number): R | ListedRows {
  const { format, layout } = layer.packed;
  return format === 'int8' ? newRows(layer, count, stepsOf(k, layout) + 2) : rows;
}

/** Encodes `count` rows of k floats, where that is to be done. */
export function encode({ format }: PackedWeights, from: Rows, count: number, k: number, to: Rows): Call[] {
  return format === 'int8' ? [['quantize_i7', from.ptr, from.stride, count, k, to.ptr]] : [];
}

/** Bytes that a product needs besides its arguments: a panel in float32, for halves to be widened to. */
export function scratchBytes({ format, set, dModel, dFf }: PackedWeights): number {
  const isHalf = format === 'f16' || format === 'bf16';
  return isHalf ? align(4 * set.panelWidth * (Math.max(dModel, dFf) + 1)) : 0;
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

/** An expert's hidden rows, encoded for its second product; `xList`: the addresses of the (encoded) rows that it was given. */
export function hiddenRows(
  packed: PackedWeights,
  { up, gate }: PackedExpert,
  count: number,
  xList: number,
  { hidden, factors, encoded }: ExpertMemory,
  scratchPtr: number,
  config: Config,
): Call[] {
  const length = count * hidden.stride;
  const activate: Call = ['activate_f32', hidden.ptr, hidden.ptr, length, ACTIVATION_ID[config.activation]];
  const calls: Call[] = [product(packed, gate ?? up, count, xList, hidden.list, scratchPtr), activate];
  if (factors) {
    calls.push(product(packed, up, count, xList, factors.list, scratchPtr), [
      'multiply_f32',
      factors.ptr,
      hidden.ptr,
      length,
    ]);
  }
  return [...calls, ...encode(packed, hidden, count, packed.dFf, encoded)];
}

/** A product over `count` rows, in some of the outputs' panels or all; lists of the rows' addresses. */
export function product(
  { set, format }: PackedWeights,
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
