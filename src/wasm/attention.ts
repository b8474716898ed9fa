/** The memory of causal attention, as assembly/attention.ts lays it out: keys and values of heads, and room for its scores. */

/** Positions, or columns, that lie side by side. */
const GROUP = 8;
/** Rows whose scores are in memory at once. */
const TILE_ROWS = 4;

/** Bytes of the keys of so many heads, one behind the other; head h begins at `h * keysBytes(contextLength, headWidth)`. */
export function keysBytes(contextLength: number, headWidth: number, numHeads = 1): number {
  return 4 * numHeads * whole(contextLength) * headWidth;
}

/** Bytes of the values of so many heads, laid out likewise. */
export function valuesBytes(contextLength: number, headWidth: number, numHeads = 1): number {
  return 4 * numHeads * contextLength * whole(headWidth);
}

/** Bytes of both: of a layer's cache, the keys of all its heads and then the values. */
export function headCacheBytes(contextLength: number, headWidth: number, numHeads: number): number {
  return keysBytes(contextLength, headWidth, numHeads) + valuesBytes(contextLength, headWidth, numHeads);
}

/** Bytes that `attend_f32` needs besides its arguments, for each thread that runs it. */
export function attendScratchBytes(contextLength: number): number {
  return 4 * TILE_ROWS * whole(contextLength);
}

function whole(count: number): number {
  return Math.ceil(count / GROUP) * GROUP;
}
