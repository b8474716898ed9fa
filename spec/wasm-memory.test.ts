/** The memory of layers: how much, where, and what becomes of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bits } from './bits.js';
import { loadKernels, memoryOf } from './kernels.js';

test('addresses past 2 GiB are addresses: the kernels give the same bits there', () => {
  const memory = memoryOf(2 ** 31 + 2 ** 20); // pages that nobody touches cost nothing
  const kernels = loadKernels('simd', memory)!;
  const width = kernels.panelWidth.value;
  const yOf = (base: number) => {
    const [xPtr, weightPtr, biasPtr, hiddenPtr, rowsPtr, outPtr] = [0, 1024, 8192, 9216, 10240, 11264].map(
      p => base + p,
    );
    new Float32Array(memory.buffer, xPtr, 10).forEach((_, i, x) => {
      x[i] = Math.sin(i);
    });
    new Float32Array(memory.buffer, weightPtr, 5 * width).forEach((_, i, w) => {
      w[i] = Math.cos(i);
    });
    new Uint32Array(memory.buffer, rowsPtr, 2).set([xPtr, xPtr + 20]);
    kernels.up_f32(rowsPtr, 2, weightPtr, biasPtr, hiddenPtr, 5, 1, 1);
    kernels.down_f32(hiddenPtr, width, 2, weightPtr, biasPtr, outPtr, width, 5, 0, 1);
    return bits({ data: new Float32Array(memory.buffer, outPtr, 2 * width) });
  };
  assert.equal(yOf(2 ** 31 + 4096), yOf(4096));
  assert.equal(yOf(2 ** 31 - 8192), yOf(4096)); // across the border
});
