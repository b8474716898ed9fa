/** The language model's kernels on numbers of their own, of which one can see whether they give the right bits, and how fast. */
import { attendScratchBytes, headCacheBytes, keysBytes } from './attention.js';
import type { KernelModule } from './kernels.js';
import { align, Memory } from './memory.js';
import { workspaceOver } from './workspace.js';

const NUM_HEADS = 2;

/**
 * A layer's norms and attention of so many rows: a norm without and one with something to add, and the rows' attention
 * together and one by one.
 *
 * @returns what computes them, and hands over the memory that they are in
 */
export function modelExercise(
  module: KernelModule,
  draw: () => number,
  numRows: number,
  headWidth: number,
): () => Float32Array {
  const d = NUM_HEADS * headWidth;
  const sizes = [4 * (2 * d + 1), 4 * numRows * 3 * d, 4 * numRows * d, 4 * numRows * d, 4 * numRows * d];
  const scratchBytes = attendScratchBytes(numRows);
  const cacheBytes = headCacheBytes(numRows, headWidth, NUM_HEADS);
  const total = [...sizes, scratchBytes, cacheBytes].reduce((sum, size) => sum + align(size), 0);
  const { memory, kernels } = workspaceOver(module, new Memory(total, module.isShared));
  const begin = memory.end;
  const [norm, qkv, x, together, byRows] = sizes.map(size => memory.allocate(size));
  const numFloats = (memory.end - begin) / 4;
  const [scratch, keys] = [scratchBytes, cacheBytes].map(size => memory.allocateZeros(size));
  const values = keys + keysBytes(numRows, headWidth, NUM_HEADS);
  const initial = Float32Array.from({ length: numFloats }, draw);
  initial[2 * d] = 1e-5; // the norm's eps
  const attend = (first: number, count: number, out: number) => {
    const [q, to] = [qkv + 4 * first * 3 * d, out + 4 * first * d];
    kernels.attend_f32(q, 3 * d, keys, values, numRows, to, d, first, count, headWidth, 0, NUM_HEADS, scratch);
  };
  return () => {
    const floats = memory.floats(begin, numFloats);
    floats.set(initial);
    kernels.add_norm_f32(x, d, 0, 0, norm, qkv, 3 * d, numRows, d);
    kernels.store_heads_f32(
      qkv + 4 * d,
      qkv + 8 * d,
      3 * d,
      keys,
      values,
      numRows,
      0,
      numRows,
      headWidth,
      0,
      NUM_HEADS,
    );
    attend(0, numRows, together);
    for (let i = 0; i < numRows; i++) attend(i, 1, byRows);
    kernels.add_norm_f32(x, d, together, d, norm, together, d, numRows, d);
    return floats;
  };
}
