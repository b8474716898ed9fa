/** The memory of layers: how much, where, and what becomes of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Config, forward, type Matrix, type Weights } from 'xmoe';
import { type Layer, layerOfSizes } from 'xmoe/cases';
import { activationNames, routerNames } from 'xmoe/spec';
import { wasmBackend } from 'xmoe/wasm';
import { bits } from './bits.js';
import { compileKernels, fused, Memory, packWeights, runAlone, workspaceOver } from './internals.js';

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
      const { memory, packed } = packWeights(weights, module, () => sparse);
      assert.equal(memory, sparse);
      const space = { ...workspaceOver(module, sparse), packed };
      const [y, onThreads] = [1, 2].map(n => bits(runAlone({ space, loops: fused(x, inputs, config)(space, n) }).y));
      assert.equal(onThreads, y);
      assert.ok(sparse.end > start && sparse.end < start + from.length);
      from.fill(0); // as packWeights wants it
      return y;
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

/** 1000 experts that share two vectors. A row of weights takes a whole panel: 5.2 GB. */
const tooLarge: [Weights, Config] = (() => {
  const [numExperts, dModel] = [1000, 2 ** 17];
  const vector = new Float32Array(dModel);
  const list = (rows: number, cols: number) => Array<Matrix>(numExperts).fill({ rows, cols, data: vector });
  return [
    { router: { rows: 0, cols: dModel, data: new Float32Array() }, up: list(1, dModel), down: list(dModel, 1) },
    { router: 'hash', numExperts, capacityFactor: null, activation: 'relu' },
  ];
})();

test('memory that cannot be had is an error that says how much was needed, and changes nothing', async () => {
  const { x, weights, config } = layerOfSizes(3, 2, 4, 5);
  for (const threads of [1, 2]) {
    const backend = await wasmBackend({ deterministic: true, threads });
    const layer = backend.load(weights, config);
    const before = bits(layer.forward(x));
    assert.throws(
      () => backend.load(...tooLarge),
      /^RangeError: "layer" expected to need at most 4 GiB of WebAssembly memory, got 524\d{7} bytes$/,
    );
    assert.equal(bits(layer.forward(x)), before);
    backend.dispose();
  }
});

test('a call that needs too much memory says how much, and the next works', async t => {
  const module = await compileKernels('simd', false, { panelWidth: 8, tileRows: 4 });
  const nearlyFull = sparseMemory(4 * GIB - 2 ** 17);
  if (!nearlyFull) return t.skip('so much address space cannot be had here');
  nearlyFull.release(4 * GIB - 2 ** 17); // a page for the weights, and a page for a call
  const { x, weights, config } = layerOfSizes(2, 1, 64, 64, { activation: 'relu' });
  const { packed } = packWeights(weights, module, () => nearlyFull);
  const space = { ...workspaceOver(module, nearlyFull), packed };
  const run = (given: Matrix) => bits(runAlone({ space, loops: fused(given, {}, config)(space, 1) }).y);
  const small = run(x);
  const large = layerOfSizes(2000, 1, 64, 64, { activation: 'relu' });
  const { numBytes } = nearlyFull;
  assert.throws(() => run(large.x), /^RangeError: "call" expected to need at most 4 GiB/);
  assert.equal(nearlyFull.numBytes, numBytes);
  assert.equal(run(x), small);
});

test('a call that is no larger than an earlier one takes no memory', async () => {
  for (const threads of [1, 3]) {
    const grown = countGrowths();
    const backend = await wasmBackend({ deterministic: true, threads });
    const { x, weights, config } = layerOfSizes(300, 8, 60, 40);
    const part = (from: number, to: number) => ({ ...x, rows: to - from, data: x.data.slice(from * 60, to * 60) });
    const layer = backend.load(weights, config);
    const afterLoading = grown.count;
    layer.forward(x);
    const before = grown.count;
    // Once for the routing, once for what its decisions give, once for the experts, and for the tasks of each loop.
    assert.ok(before > afterLoading && before <= afterLoading + (threads === 1 ? 3 : 6), `${before - afterLoading}`);
    await layer.forwardAsync(x);
    for (let t = 0; t < 300; t += 50) {
      layer.forward(part(t, t + 50));
      await layer.forwardAsync(part(0, t));
      layer.forward(x);
    }
    assert.equal(grown.count, before);
    backend.dispose();
    grown.end();
  }
});

test('where memory is refused, what the seam has packed makes room, and is packed again when it comes again', async () => {
  const drawn = [1, 2, 3].map(seed => layerOfSizes(20, 4, 30, 20, { seed }));
  for (const threads of [1, 2]) {
    const backend = await wasmBackend({ deterministic: true, threads });
    const yOf = ({ x, weights, config }: Layer) => bits(forward(backend, x, weights, config).y);
    const expected = drawn.map(yOf);
    const { Memory: Original } = WebAssembly;
    let numRefused = 0;
    WebAssembly.Memory = class extends Original {
      constructor(descriptor: object) {
        if (numRefused++ === 0) throw new RangeError('no memory');
        super(descriptor);
      }
    };
    try {
      const { x, weights, config } = drawn[0];
      const layer = backend.load(weights, config);
      assert.ok(numRefused > 0);
      assert.equal(bits(layer.forward(x)), expected[0]);
    } finally {
      WebAssembly.Memory = Original;
    }
    assert.deepEqual(drawn.map(yOf), expected);
    backend.dispose();
  }
});

test('dispose gives everything back', async () => {
  const { x, weights, config } = layerOfSizes(20, 8, 512, 512, { activation: 'relu', storage: 'f32' }); // 17 MB of weights
  const open = async (threads: number) => {
    const backend = await wasmBackend({ deterministic: true, threads });
    const layers = Array.from({ length: 3 }, () => backend.load(weights, config));
    for (const layer of layers) layer.forward(x);
    forward(backend, x, weights, config);
    backend.dispose();
  };
  for (const threads of [1, 2]) {
    await open(threads);
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 8; i++) await open(threads); // 540 MB in all
    const grown = process.memoryUsage().rss - before;
    assert.ok(grown < 300e6, `${threads} threads: ${grown} bytes`);
  }
});

/** Counts the memories that are made, and those that are made to grow. */
function countGrowths() {
  const { Memory: Original } = WebAssembly;
  const { grow } = Original.prototype;
  const counter = {
    count: 0,
    end() {
      WebAssembly.Memory = Original;
      Original.prototype.grow = grow;
    },
  };
  Original.prototype.grow = function (pages: number) {
    counter.count++;
    return grow.call(this, pages);
  };
  WebAssembly.Memory = class extends Original {
    constructor(descriptor: object) {
      super(descriptor);
      counter.count++;
    }
  };
  return counter;
}

/** Pages that nobody touches cost nothing but addresses. */
function sparseMemory(numBytes: number): InstanceType<typeof Memory> | undefined {
  try {
    return new Memory(numBytes, false);
  } catch {
    return undefined;
  }
}

/** The little of WebAssembly's interface that is used here: TypeScript has it only in its library for browsers. */
declare const WebAssembly: { Memory: new (descriptor: object) => { grow(pages: number): number } };
