/** A memory for the kernels where every byte that is neither input nor output is poison. */
import assert from 'node:assert/strict';
import { memoryOf } from './kernels.js';

/** A NaN of its own bits: a sum that reads it is NaN, a store onto it is seen. */
const POISON = 0x7fc0dead;

/** An array in the memory. */
export interface Region {
  readonly ptr: number;
  /** Also where it holds addresses or float64s: then it counts 4 bytes. */
  readonly floats: Float32Array;
}

export const memory = memoryOf(8 * 65536);
const words = new Uint32Array(memory.buffer);
const view = new DataView(memory.buffer);

/**
 * Poison the memory, and lay arrays of these lengths from its end downwards, poison between them: `gap` elements above
 * four, which move an array against 16 bytes. The `last`-th ends the memory, so that a read past its end traps.
 */
export function lay<Name extends string>(
  lengths: Readonly<Record<Name, number>>,
  gap: number,
  last: number,
): Record<Name, Region> {
  words.fill(POISON);
  const names = Object.keys(lengths) as Name[];
  const order = names.map((_, i) => names[(i + last) % names.length]);
  const regions = {} as Record<Name, Region>;
  let end = words.length;
  for (const name of order) {
    const start = end - lengths[name];
    if (start < 0) throw new Error('the memory is too small');
    regions[name] = { ptr: 4 * start, floats: new Float32Array(memory.buffer, 4 * start, lengths[name]) };
    end = start - 4 - gap;
  }
  return regions;
}

export function putAddresses({ ptr }: Region, addresses: readonly number[]): void {
  words.set(addresses, ptr / 4);
}

export function putBytes({ ptr, floats }: Region, data: Uint8Array): void {
  assert.equal(data.length, 4 * floats.length);
  new Uint8Array(memory.buffer).set(data, ptr);
}

export function putDoubles({ ptr }: Region, doubles: Float64Array): void {
  for (let i = 0; i < doubles.length; i++) view.setFloat64(ptr + 8 * i, doubles[i], true);
}

/** Run a kernel onto `out`, which holds `initial` (poison if undefined); a copy of it. All else but `scratch` stays as it was. */
export function run(kernel: () => void, out: Region, initial?: Float32Array, scratch?: Region): Float32Array {
  poison(out);
  if (scratch) poison(scratch);
  const before = words.slice();
  if (initial) out.floats.set(initial);
  kernel();
  const written = out.floats.slice();
  poison(out);
  if (scratch) poison(scratch);
  assert.ok(Buffer.compare(bytes(words), bytes(before)) === 0, 'a kernel wrote outside its output');
  return written;
}

/** Nothing but these arrays was written since `lay`. They are poison afterwards. */
export function assertWithinAll(regions: Readonly<Record<string, Region>>): void {
  for (const region of Object.values(regions)) poison(region);
  assert.ok(
    words.every(word => word === POISON),
    'a kernel wrote outside its outputs',
  );
}

function poison({ ptr, floats }: Region): void {
  words.fill(POISON, ptr / 4, ptr / 4 + floats.length);
}

function bytes(array: Uint32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
