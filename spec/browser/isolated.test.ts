/** A page that is cross-origin isolated has threads. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wasmBackend } from 'xmoe/wasm';
import { bits } from '../bits.js';
import { startedWorkers } from '../environment.js';
import { slowLayer } from '../slow-layer.js';

test('a page that is cross-origin isolated has the threads that it asks for', async () => {
  const backend = await wasmBackend({ threads: 4 });
  assert.deepEqual(
    [backend.info.target, backend.info.threads, backend.info.notUsed.threads],
    ['relaxed', 4, undefined],
  );
  backend.dispose();
});

test('a page goes on while forwardAsync computes', async () => {
  const { backend, layer, x, expected } = await slowLayer();
  let isDone = false;
  let numTurns = 0;
  const pending = layer.forwardAsync(x).finally(() => {
    isDone = true;
  });
  while (!isDone) {
    await new Promise(resolve => setTimeout(resolve, 0));
    numTurns++;
  }
  assert.equal(bits(await pending), expected);
  assert.ok(numTurns > 1, `${numTurns} turns`);
  backend.dispose();
});

test('workers that were ended from outside, of which a browser tells nobody, are given up after a minute', async () => {
  const before = startedWorkers.length;
  const { backend, layer, x, expected } = await slowLayer();
  assert.equal(bits(await layer.forwardAsync(x)), expected);
  const ofBackend = startedWorkers.slice(before);
  assert.equal(ofBackend.length, 2);
  for (const worker of ofBackend) worker.terminate();
  assert.equal(bits(layer.forward(x)), expected); // the page is a thread, too
  // They are given some time to end: until then they work.
  const untilRefused = async () => {
    for (let i = 0; i < 100; i++) {
      assert.equal(bits(await layer.forwardAsync(x)), expected);
      await new Promise(resolve => setTimeout(resolve, 100));
    }
  };
  await assert.rejects(untilRefused, {
    name: 'WorkerError',
    message: /^"threads" expected workers that finish the call, got a worker that finished nothing in 60 s$/,
  });
  for (let i = 0; i < 3; i++) assert.equal(bits(await layer.forwardAsync(x)), expected);
  backend.dispose();
});
