/** The experts' products as kernel calls. */
import type { ActivationName, Config } from '../types.js';
import { Finish } from './kernels.js';
import type { PackedExpert, PackedLinear, PackedWeights } from './packed-weights.js';
import type { Call } from './tasks.js';

/** Addresses of lists: of a row's address each, and with `weights` of a combine weight each. */
export interface Rows {
  readonly count: number;
  readonly from: number;
  readonly to: number;
  readonly weights?: number;
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

/** σ(W1 x + b1), or the gated form, of rows given to one expert; `hiddenPtr` is the first of the rows in `to`, dense. */
export function hiddenRows(
  packed: PackedWeights,
  { up, gate }: PackedExpert,
  rows: Rows,
  hiddenPtr: number,
  config: Config,
): Call[] {
  const length = rows.count * up.numPanels * packed.set.panelWidth;
  const activate: Call = ['activate_f32', hiddenPtr, hiddenPtr, length, ACTIVATION_ID[config.activation]];
  if (!gate) return [product(packed, up, rows, Finish.STORE), activate];
  return [product(packed, gate, rows, Finish.STORE), activate, product(packed, up, rows, Finish.MULTIPLY)];
}

/** A product in some of the outputs' panels, or all. */
export function product(
  { set }: PackedWeights,
  { panelsPtr, steps, numPanels }: PackedLinear,
  { count, from, to, weights = 0 }: Rows,
  finish: number,
  [firstPanel, lastPanel] = [0, numPanels],
): Call {
  const kernel = `product_f32_${set.panelWidth}` as const;
  return [kernel, panelsPtr, steps, from, count, to, weights, firstPanel, lastPanel, finish, set.tileRows];
}
