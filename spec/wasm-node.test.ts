/** What only Node shows of the backend: processes of its own, threads that die, time and memory. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import type { Matrix } from 'xmoe';
import { layerOfSizes } from 'xmoe/cases';
import { WorkerError } from 'xmoe/wasm';
import { bits } from './bits.js';
import { slowLayer, withThreads } from './slow-layer.js';

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
    if (++calls === 3) setImmediate().then(() => newest().terminate());
    return pending;
  }, expected);
  backend.dispose();
});

test('dispose ends the worker threads', async () => {
  const { backend, newest } = await slowLayer();
  const ended = once(newest() as Worker, 'exit');
  backend.dispose();
  await ended;
});

test('the memory of a layer that was disposed of serves the next', async () => {
  const [one, two] = await Promise.all([1, 2].map(withThreads));
  const large = layerOfSizes(0, 8, 512, 512, { activation: 'relu' });
  const small = layerOfSizes(20, 3, 9, 11);
  const expected = bits(one.load(small.weights, small.config).forward(small.x));
  const before = process.memoryUsage().rss;
  for (let i = 0; i < 20; i++) {
    two.load(large.weights, large.config).dispose(); // 17 MB
    const layer = two.load(small.weights, small.config);
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

/** Node 20 has relaxed SIMD behind a flag, so only a process of its own shows what comes before it is set. */
test('where relaxed SIMD is behind a flag, it is not used until it is enabled', t => {
  const door = new URL('../../dist/wasm/index.js', import.meta.url);
  const source = `
    const { wasmBackend } = await import('${door}');
    const [byDefault, required] = await Promise.all([
      wasmBackend(),
      wasmBackend({ features: { relaxedSimd: true } }).catch(error => error),
    ]);
    const enabled = await wasmBackend({ features: { relaxedSimd: 'enable' }, threads: 2 });
    console.log(JSON.stringify([byDefault.info, required.message, enabled.info.target, enabled.info.threads]));`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', source], {
    encoding: 'utf8',
  });
  assert.equal(stderr, '');
  const [byDefault, message, ...enabled] = JSON.parse(stdout);
  assert.deepEqual(enabled, ['relaxed', 2]);
  if (message === null) return t.skip('this engine has relaxed SIMD without a flag');
  assert.equal(byDefault.target, 'simd');
  assert.match(byDefault.notUsed.relaxedSimd, /^an engine without it \(.*'enable'/);
  assert.match(message, /^"engine" expected relaxed SIMD, got an engine without it/);
});

/** What a program prints that has `layer` of `backend`, and ends by itself. `first` runs before the library is loaded. */
function program(first: string, rest: string): string {
  const door = new URL('../../dist/wasm/index.js', import.meta.url);
  const one = `{ rows: 1, cols: 1, data: Float64Array.of(1) }`;
  const many = `{ rows: 500, cols: 1, data: new Float64Array(500).fill(2) }`;
  const source = `${first};
    const { wasmBackend } = await import('${door}');
    const backend = await wasmBackend({ deterministic: true, threads: 2 });
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
