/** Threads change no bit, hang never, and leave nothing behind. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import type { Matrix } from 'xmoe';
import { type Layer, layerOfSizes } from 'xmoe/cases';
import { activationNames, layers, noDrop, routerNames } from 'xmoe/spec';
import { type WasmLayer, WorkerError, wasmBackend } from 'xmoe/wasm';
import { property } from './property.js';

/** Every worker thread that this process has started. */
const started: Worker[] = [];
process.on('worker', worker => started.push(worker));

const withThreads = (threads: number) => wasmBackend({ target: 'simd', threads });
const [one, two, three] = await Promise.all([1, 2, 3].map(withThreads));

const bits = ({ data }: Matrix) => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('hex');

property(
  'any number of threads gives the same bits',
  layers(),
  ({ x, weights, config, inputs }, reach) => {
    const loaded = [one, two, three].map(backend => backend.load(weights, config));
    const [expected, ...others] = loaded.map(layer => bits(layer.forward(x, inputs)));
    for (const y of others) assert.equal(y, expected);
    assert.equal(bits(loaded[1].forward(x, inputs)), expected);
    for (const layer of loaded) layer.dispose();
    reach(config.router);
    reach(config.activation);
  },
  [...routerNames, ...activationNames],
);

property(
  'on threads too, with no drops the bits of a token do not depend on its batch',
  layers({ routers: ['threshold', 'dense', 'switch', 'base_eval'], capacities: noDrop, masks: ['absent'] }),
  ({ x, weights, config }) => {
    const loaded = three.load(weights, config);
    const y = loaded.forward(x);
    const row = (a: Matrix, t: number) => ({ rows: 1, cols: a.cols, data: a.data.slice(t * a.cols, (t + 1) * a.cols) });
    for (let t = 0; t < x.rows; t += 7) assert.equal(bits(loaded.forward(row(x, t))), bits(row(y, t)));
    loaded.dispose();
  },
  [],
  { share: 0.25 },
);

test('forwardAsync, which leaves all work to workers, gives the bits of forward', async () => {
  const drawn: Layer[] = routerNames.map(router => layerOfSizes(200, 9, 40, 21, { router }));
  for (const { x, weights, config, inputs } of [...drawn, ...fc.sample(layers(), 60)]) {
    const loaded = [one, two, three].map(backend => backend.load(weights, config));
    const expected = bits(loaded[0].forward(x, inputs));
    for (const layer of loaded) assert.equal(bits(await layer.forwardAsync(x, inputs)), expected);
    for (const layer of loaded) layer.dispose();
  }
});

test('large layers, whose tasks are many, have the same bits for every router', () => {
  for (const router of routerNames) {
    const { x, weights, config, inputs } = layerOfSizes(400, 12, 130, 70, { router });
    const [expected, ...others] = [one, two, three].map(backend =>
      bits(backend.load(weights, config).forward(x, inputs)),
    );
    for (const y of others) assert.equal(y, expected, router);
  }
});

test('more threads than tokens, experts and columns, and calls without tokens', async () => {
  const many = await withThreads(7);
  for (const numTokens of [0, 1, 2]) {
    const { x, weights, config } = layerOfSizes(numTokens, 1, 3, 2);
    const expected = bits(one.load(weights, config).forward(x));
    const layer = many.load(weights, config);
    assert.equal(bits(layer.forward(x)), expected);
    assert.equal(bits(await layer.forwardAsync(x)), expected);
  }
  many.dispose();
});

test('layers and backends work side by side; a layer in use by forwardAsync refuses forward', async () => {
  const cases = [1, 2, 3].map(seed => layerOfSizes(150, 6, 60, 33, { seed }));
  const expected = cases.map(({ x, weights, config }) => bits(one.load(weights, config).forward(x)));
  const [ofTwo, ofThree] = [two, three].map(backend =>
    cases.map(({ weights, config }) => backend.load(weights, config)),
  );
  const pending = [...ofTwo, ...ofThree, ...ofTwo].map((layer, i) => layer.forwardAsync(cases[i % 3].x));
  assert.throws(() => ofTwo[0].forward(cases[0].x), /"layer" expected no forwardAsync under way/);
  const { weights, config, x } = cases[1];
  assert.equal(bits(two.load(weights, config).forward(x)), expected[1]); // another layer, while the threads are taken
  assert.deepEqual((await Promise.all(pending)).map(bits), [...expected, ...expected, ...expected]);
  assert.equal(bits(ofTwo[0].forward(cases[0].x)), expected[0]);
});

test('errors of a call are those of one thread, and leave the threads in order', async () => {
  const { x, weights, config } = layerOfSizes(30, 4, 20, 10);
  const layer = two.load(weights, config);
  const huge = { ...x, data: x.data.map(() => 3e38) };
  const refusal = /expected finite/;
  assert.throws(() => layer.forward(huge), refusal);
  await assert.rejects(layer.forwardAsync(huge), refusal);
  await assert.rejects(layer.forwardAsync({ ...x, cols: 3 }), /"x" expected/);
  assert.equal(bits(layer.forward(x)), bits(one.load(weights, config).forward(x)));
});

/** A backend of two threads, a layer of it whose calls take a while, its input, and the y that one thread gives. */
async function slowLayer() {
  const { x, weights, config } = layerOfSizes(300, 8, 200, 120);
  const before = started.length;
  const backend = await withThreads(2);
  return {
    backend,
    layer: backend.load(weights, config),
    x,
    expected: bits(one.load(weights, config).forward(x)),
    /** Of this backend, the last one started. */
    newest: () => started.slice(before).at(-1)!,
  };
}

test('a worker that dies between calls is reported by the next, and the one after works', async () => {
  const { backend, layer, x, expected, newest } = await slowLayer();
  for (const call of [async () => layer.forward(x), () => layer.forwardAsync(x)]) {
    assert.equal(bits(await call()), expected);
    await newest().terminate();
    await assert.rejects(call(), {
      name: 'WorkerError',
      message: /"threads" expected workers that finish the call, got/,
    });
    for (let i = 0; i < 5; i++) assert.equal(bits(await call()), expected);
  }
  backend.dispose();
});

/** Calls until a death is reported, every result before it right; then the next calls. */
async function untilDeath(call: () => Promise<Matrix>, expected: string): Promise<void> {
  let report: unknown;
  for (let i = 0; i < 500 && !report; i++) {
    const y = await call().catch(error => {
      report = error;
    });
    if (y) assert.equal(bits(y), expected);
    await sleep(1);
  }
  assert.ok(report instanceof WorkerError, String(report));
  assert.match(report.message, /got a worker that died/); // seen, and not just given up
  for (let i = 0; i < 5; i++) assert.equal(bits(await call()), expected);
}

test('a worker that dies while the caller sleeps is reported', async () => {
  const { backend, layer, x, expected, newest } = await slowLayer();
  const { wait } = Atomics;
  try {
    // The caller waits for a worker that works: that one is killed.
    Atomics.wait = ((...args: Parameters<typeof wait>) => {
      Atomics.wait = wait;
      newest().terminate();
      return wait(...args);
    }) as typeof wait;
    await untilDeath(async () => layer.forward(x), expected);
  } finally {
    Atomics.wait = wait;
    backend.dispose();
  }
});

test('a worker that dies during forwardAsync is reported', async () => {
  const { backend, layer, x, expected, newest } = await slowLayer();
  let calls = 0;
  await untilDeath(() => {
    const pending = layer.forwardAsync(x);
    if (++calls === 3) setImmediate(() => newest().terminate());
    return pending;
  }, expected);
  backend.dispose();
});

test('a worker that fails says why', async () => {
  const { backend, layer, x, newest } = await slowLayer();
  newest().postMessage('neither memory nor module');
  let report = '';
  for (let i = 0; i < 500 && !report; i++) {
    await layer.forwardAsync(x).catch(error => {
      report = String(error);
    });
  }
  assert.match(report, /WorkerError: .* got a worker that failed: \w+Error: /);
  backend.dispose();
});

test('dispose ends the workers and the calls that wait for them', async () => {
  const { backend, layer, x, newest } = await slowLayer();
  const pending = [layer.forwardAsync(x), layer.forwardAsync(x)];
  const rejected = Promise.all(pending.map(call => assert.rejects(call, /disposed of/)));
  await sleep(1);
  const ended = once(newest(), 'exit');
  backend.dispose();
  backend.dispose();
  await Promise.all([rejected, ended]);
  assert.throws(() => layer.forward(x), /"layer" expected one in use/);
});

test('a layer disposed of during its call lets the call end', async () => {
  const { backend, layer, x, expected } = await slowLayer();
  const pending = layer.forwardAsync(x);
  await sleep(1);
  layer.dispose();
  assert.equal(bits(await pending), expected);
  assert.throws(() => layer.forward(x), /"layer" expected one in use/);
  backend.dispose();
});

test('the memory of a layer that was disposed of serves the next', () => {
  const large = layerOfSizes(0, 8, 512, 512, { activation: 'relu' });
  const small = layerOfSizes(20, 3, 9, 11);
  const expected = bits(one.load(small.weights, small.config).forward(small.x));
  const before = process.memoryUsage().rss;
  for (let i = 0; i < 20; i++) {
    two.load(large.weights, large.config).dispose(); // 17 MB
    const layer: WasmLayer = two.load(small.weights, small.config);
    assert.equal(bits(layer.forward(small.x)), expected);
    layer.dispose();
  }
  const grown = process.memoryUsage().rss - before;
  assert.ok(grown < 200e6, `${grown} bytes`);
});

test('idle threads burn no time', async () => {
  const { backend, layer, x } = await slowLayer();
  layer.forward(x);
  const before = process.cpuUsage();
  await sleep(300);
  const { user, system } = process.cpuUsage(before);
  assert.ok(user + system < 150e3, `${user + system} µs`);
  backend.dispose();
});

test('bad numbers of threads are refused, and the backend says what it uses', async () => {
  for (const threads of [0, -1, 1.5, Number.NaN, 257]) {
    await assert.rejects(withThreads(threads), /RangeError: "options.threads" expected an integer from 1 to 256, got/);
  }
  // @ts-expect-error: a caller without types
  await assert.rejects(withThreads('2'), /TypeError: "options.threads" expected an integer/);
  assert.deepEqual([one.info.threads, one.info.notUsed.threads], [1, 'options.threads is 1']);
  assert.deepEqual([three.info.threads, three.info.notUsed.threads], [3, undefined]);
});

/** What a program prints that has `layer` of `backend`, and ends by itself. `first` runs before the library is loaded. */
function program(first: string, rest: string): string {
  const door = new URL('../../dist/wasm/index.js', import.meta.url);
  const one = `{ rows: 1, cols: 1, data: Float64Array.of(1) }`;
  const many = `{ rows: 500, cols: 1, data: new Float64Array(500).fill(2) }`;
  const source = `${first};
    const { wasmBackend } = await import('${door}');
    const backend = await wasmBackend({ target: 'simd', threads: 2 });
    const weights = { router: ${one}, up: [${one}], down: [${one}] };
    const layer = backend.load(weights, { router: 'dense', numExperts: 1, capacityFactor: null, activation: 'relu' });
    const x = ${many};
    const isRight = ({ data }) => data.length === 500 && data.every(y => y === 2);
    ${rest}`;
  const args = ['--input-type=module', '--eval', source];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000 });
  assert.equal(status, 0, stderr);
  return stdout.trim();
}

const report = 'console.log(backend.info.threads, isRight(layer.forward(x)), isRight(await layer.forwardAsync(x)));';

test('a process that used threads, and did not dispose of them, ends by itself', () => {
  assert.equal(program('', report), '2 true true');
});

test('where the calling thread may not sleep, as in a page, forward works too', () => {
  const refuse = `Atomics.wait = () => { throw new TypeError('Atomics.wait cannot be called in this context') }`;
  assert.equal(program(refuse, `for (let i = 0; i < 50; i++) layer.forward(x); ${report}`), '2 true true');
});

test('without SharedArrayBuffer or workers there is one thread, and the reason', () => {
  const why = 'console.log(backend.info.notUsed.threads);';
  assert.match(
    program('delete globalThis.SharedArrayBuffer', report + why),
    /^1 true true\nSharedArrayBuffer is missing/,
  );
  const noNode = `Object.defineProperty(globalThis, 'process', { value: undefined })`;
  assert.match(program(noNode, report + why), /^1 true true\nworkers are missing/);
});
