/** A runtime's faults that only Node shows, and that all which it took is given back: memory, threads, files, connections. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Worker } from 'node:worker_threads';
import { encode, SourceError } from 'xmoe/model';
import { openRuntime } from 'xmoe/runtime';
import { WorkerError } from 'xmoe/wasm';
import { startedWorkers } from './environment.js';
import { numOpen } from './open-files.js';
import { refusing } from './refused-memory.js';
import { tinyModelFile } from './tiny-model.js';

const file = tinyModelFile({ max_position_embeddings: 200 }) as Uint8Array<ArrayBuffer>;
const text = encode('a text of some length '.repeat(9));
const folder = mkdtempSync(join(tmpdir(), 'xmoe-given-back-'));
after(() => rmSync(folder, { recursive: true }));

/** The workers that `act` starts have all ended after it. */
async function withoutWorkersLeft(act: () => Promise<void>): Promise<void> {
  const before = startedWorkers.length;
  await act();
  for (const worker of startedWorkers.slice(before) as Worker[]) {
    if (worker.threadId >= 0) await once(worker, 'exit');
  }
}

test('where a worker has died and there is no memory to go on in, the next call asks again', async () => {
  const before = startedWorkers.length;
  const runtime = await openRuntime(new Blob([file]), { deterministic: true, threads: 2 });
  const [stream, whole] = [runtime.stream(), runtime.stream()];
  await stream.read(text.subarray(0, 100));
  await (startedWorkers.slice(before) as Worker[])[0].terminate();
  const isRefused = (what: string) => what === 'new';
  await refusing(isRefused, async () => {
    await assert.rejects(stream.read(text.subarray(100)), WorkerError);
    for (let i = 0; i < 2; i++) {
      await assert.rejects(stream.read(text.subarray(100)), {
        name: 'RangeError',
        message: /^"model" expected \d+ bytes of WebAssembly memory, got none: the engine refused$/,
      });
    }
  });
  assert.equal(stream.numTokens, 100);
  const [rest, all] = [await stream.read(text.subarray(100)), await whole.read(text)];
  assert.deepEqual(rest.logits.data, all.logits.data.slice(100 * 256));
  runtime.dispose();
});

test('a connection that breaks at the same byte again and again is a SourceError, and nothing is left', async () => {
  let numRequests = 0;
  const server = createServer((_, response) => {
    numRequests++;
    response.writeHead(200, { 'content-length': file.length });
    response.write(file.subarray(0, 3000), () => response.destroy());
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/model.safetensors`;
  for (const threads of [1, 2]) {
    for (const lazyExperts of [undefined, {}]) {
      const options = { threads, ...(lazyExperts && { lazyExperts }) };
      await withoutWorkersLeft(() => assert.rejects(openRuntime(address, options), SourceError));
    }
  }
  assert.ok(numRequests >= 4);
  server.close(); // which waits for what is left of connections
  server.closeIdleConnections();
  await once(server, 'close');
});

test('files and threads of models that are refused, aborted or disposed of are given back', async () => {
  const [whole, cut] = ['whole', 'cut'].map(name => join(folder, `${name}.safetensors`));
  writeFileSync(whole, file);
  writeFileSync(cut, file.subarray(0, 4000));
  for (const lazyExperts of [undefined, {}]) {
    const options = { threads: 2, ...(lazyExperts && { lazyExperts }) };
    await withoutWorkersLeft(async () => {
      await assert.rejects(openRuntime(cut, options), { name: 'SafetensorsError' });
      const abort = new AbortController();
      const reason = new Error('enough');
      const aborting = { ...options, signal: abort.signal, onProgress: () => abort.abort(reason) };
      await assert.rejects(openRuntime(whole, aborting), reason);
      await refusing(
        () => true,
        () => assert.rejects(openRuntime(whole, options), { name: 'RangeError' }),
      );
      const runtime = await openRuntime(whole, options);
      const reading = assert.rejects(runtime.stream().read(text), /disposed of/);
      runtime.dispose();
      await reading;
    });
    for (let turn = 0; turn < 100 && (numOpen(whole) || numOpen(cut)); turn++) await new Promise(setImmediate);
    assert.ok(!numOpen(whole) && !numOpen(cut), 'the files are closed');
  }
});

/** Opens, reads and disposes again and again; prints by how much the process grew after the first rounds. */
const LOOP = `
import { openRuntime } from 'xmoe/runtime';
const threads = Number(process.argv[1]);
const round = async () => {
  const runtime = await openRuntime('${join(folder, 'large.safetensors')}', { threads });
  await runtime.stream().read(Uint8Array.of(1, 2, 3));
  runtime.dispose();
};
const numBytes = async () => {
  for (let turn = 0; turn < 10; turn++) {
    await new Promise(resolve => setTimeout(resolve, 20)); // threads end, and let go of memory, in their own time
    gc();
  }
  return process.memoryUsage().rss;
};
for (let i = 0; i < 10; i++) await round();
const before = await numBytes();
for (let i = 0; i < Number(process.argv[2]); i++) await round();
console.log(await numBytes() - before);
`;

for (const [threads, rounds] of [
  [1, 200],
  [2, 40],
]) {
  test(`${rounds} models that were disposed of take no memory: ${threads} threads`, () => {
    const large = tinyModelFile({ hidden_size: 96, num_experts: 16, moe_intermediate_size: 80 });
    writeFileSync(join(folder, 'large.safetensors'), large);
    assert.ok(large.length > 2e6);
    const args = ['--expose-gc', '--input-type=module', '--eval', LOOP, `${threads}`, `${rounds}`];
    const cwd = new URL('../../', import.meta.url);
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', cwd });
    assert.equal(status, 0, stderr);
    const growth = Number(stdout);
    assert.ok(growth < 0.4 * rounds * large.length, `grew by ${growth} bytes`); // if all were kept, by more than twice as much
  });
}
