/** The memory of layers: how much, where, and what becomes of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Layer, layerOfSizes } from 'xmoe/cases';
import { bits } from './bits.js';
import { activationNames, routerNames } from './generators.js';
import { compileKernels, Memory, packWeights, runLayer, workspaceOver } from './internals.js';

const GIB = 2 ** 30;

for (const panelWidth of [8, 16] as const) {
  test(`past 2 GiB and across the border a layer has the same bits: panels of ${panelWidth}`, async t => {
    const module = await compileKernels('simd', false, { panelWidth, tileRows: 4 });
    const sparse = sparseMemory(2 * GIB + 2 ** 26);
    if (!sparse) return t.skip('so much address space cannot be had here');
    /** y of a layer whose weights begin at an address, with the activations above them. */
    const yAt = (start: number, { x, weights, config, inputs }: Layer) => {
      sparse.release(start);
      const from = new Uint8Array(sparse.wasmMemory.buffer, start, 2 ** 24);
      const packed = packWeights(weights, module.set, () => sparse);
      assert.equal(packed.memory, sparse);
      const { y } = runLayer({ ...workspaceOver(module, sparse), packed }, x, inputs, config);
      assert.ok(sparse.end > start && sparse.end < start + from.length);
      from.fill(0); // as packWeights wants it
      return bits(y);
    };
    const layers = [
      ...routerNames.map(router => layerOfSizes(50, 6, 21, 37, { router })),
      ...activationNames.map(activation => layerOfSizes(50, 6, 21, 37, { activation })),
    ];
    for (const layer of layers) {
      const expected = yAt(64, layer);
      const numBytes: number = sparse.end; // weights and activations
      assert.equal(yAt(2 * GIB + 64, layer), expected);
      for (const share of [0.25, 0.5, 0.75]) {
        const start: number = 2 * GIB - 64 * Math.round((share * numBytes) / 64);
        assert.equal(yAt(start, layer), expected);
      }
    }
  });
}

/** Pages that nobody touches cost nothing but addresses. */
function sparseMemory(numBytes: number): InstanceType<typeof Memory> | undefined {
  try {
    return new Memory(numBytes, false);
  } catch {
    return undefined;
  }
}
