/** A memory with kernels over it: what every call computes in. */
import type { Matrix } from '../types.js';
import { instantiate, type KernelModule, type Kernels } from './kernels.js';
import type { Memory } from './memory.js';

/** Each call takes memory anew: what one has computed, the next overwrites. */
export interface Workspace {
  readonly memory: Memory;
  readonly kernels: Kernels;
}

/** What `memory` holds so far stays; calls use what is above it. */
export function workspaceOver(module: KernelModule, memory: Memory): Workspace {
  memory.keep();
  return { memory, kernels: instantiate(module.module, memory.wasmMemory) };
}

/** Copies a matrix into the call's memory, as float32. */
export function put({ memory }: Workspace, a: Matrix): number {
  const ptr = memory.allocate(4 * a.data.length);
  memory.floats(ptr, a.data.length).set(a.data);
  return ptr;
}

/** Copies bytes into the call's memory. */
export function putBytes({ memory }: Workspace, bytes: Uint8Array): number {
  const ptr = memory.allocate(bytes.length);
  memory.bytes(ptr, bytes.length).set(bytes);
  return ptr;
}

/** Copies rows out of the call's memory: `cols` of the `stride` floats of each. */
export function take({ memory }: Workspace, ptr: number, rows: number, cols: number, stride: number): Matrix {
  if (cols === stride) return { rows, cols, data: memory.floats(ptr, rows * cols).slice() };
  const data = new Float32Array(rows * cols);
  for (let i = 0; i < rows; i++) data.set(memory.floats(ptr + 4 * i * stride, cols), i * cols);
  return { rows, cols, data };
}

/** Rows in memory: the first one's address, and how many floats apart they are. */
export interface Rows {
  readonly ptr: number;
  readonly stride: number;
}

/** With a list of their addresses. */
export interface ListedRows extends Rows {
  readonly list: number;
}

/** Memory for so many rows, with whatever is in it. */
export function newRows(space: Workspace, count: number, stride: number): ListedRows {
  return listed(space, { ptr: space.memory.allocate(4 * count * stride), stride }, count);
}

/** Copies a matrix into the call's memory, as float32. */
export function putRows(space: Workspace, a: Matrix): ListedRows {
  return listed(space, { ptr: put(space, a), stride: a.cols }, a.rows);
}

function listed({ memory }: Workspace, { ptr, stride }: Rows, count: number): ListedRows {
  const list = memory.allocate(4 * count);
  const addresses = memory.words(list, count);
  for (let i = 0; i < count; i++) addresses[i] = ptr + 4 * i * stride;
  return { ptr, stride, list };
}

/** The rows from `first` on. */
export function from({ ptr, stride }: Rows, first: number): Rows {
  return { ptr: ptr + 4 * first * stride, stride };
}

/** So many bytes for each of `count` tasks: where those of task i are. */
export function each(memory: Memory, numBytes: number, count: number): (i: number) => number {
  const ptr = memory.allocate(numBytes * count);
  return i => ptr + numBytes * i;
}

/** The same with their list. */
export function part({ ptr, stride, list }: ListedRows, first: number): ListedRows {
  return { ptr: ptr + 4 * first * stride, stride, list: list + 4 * first };
}

/** Writes the addresses of rows, in the order of `rowIndex`. */
export function putAddresses({ memory }: Workspace, { ptr, stride }: Rows, rowIndex: Int32Array): number {
  const list = memory.allocate(4 * rowIndex.length);
  const addresses = memory.words(list, rowIndex.length);
  for (let i = 0; i < rowIndex.length; i++) addresses[i] = ptr + 4 * rowIndex[i] * stride;
  return list;
}
