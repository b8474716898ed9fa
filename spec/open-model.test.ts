/** Models that arrive in pieces: the same as from whole bytes, or the same errors, and a source is always let go. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import fc from 'fast-check';
import { loadModel, type ModelSource, openModel, SourceError } from 'xmoe/model';
import { SafetensorsError } from 'xmoe/safetensors';
import { numOpen } from './open-files.js';
import { piecesOf, streamOf } from './streams.js';
import { shapesOf, TINY, tinyModelFile } from './tiny-model.js';

const file = tinyModelFile();
const headerEnd = 8 + Number(new DataView(file.buffer).getBigUint64(0, true));

const folder = mkdtempSync(join(tmpdir(), 'xmoe-open-'));
const path = join(folder, 'tiny.safetensors');
writeFileSync(path, file);
after(() => rmSync(folder, { recursive: true }));

async function serving(answer: RequestListener, use: (address: string) => Promise<void>): Promise<void> {
  const server = createServer(answer);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  try {
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}/tiny.safetensors`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const withLength: RequestListener = (_, response) =>
  response.writeHead(200, { 'content-length': file.length }).end(file);
const withoutLength: RequestListener = (_, response) => {
  response.write(file.subarray(0, 1000));
  response.end(file.subarray(1000));
};

test('a path, a URL, a Blob and a stream give the model of the whole bytes', async () => {
  const expected = loadModel(file);
  const same = async (source: ModelSource) => assert.deepEqual(await openModel(source), expected);
  await same(path);
  await same(pathToFileURL(path));
  await same(pathToFileURL(path).href);
  await same(new Blob([file]));
  await same(`data:application/octet-stream;base64,${Buffer.from(file).toString('base64')}`);
  await same(new Response(file).body!);
  for (const answer of [withLength, withoutLength]) {
    await serving(answer, async address => {
      await same(address);
      await same(new URL(address));
    });
  }
  assert.ok(!numOpen(path), 'the file is closed');
});

test('pieces of any length give the same model', async () => {
  const expected = loadModel(file);
  const lengths = fc.array(fc.oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 5000 })), {
    minLength: 1,
  });
  await fc.assert(
    fc.asyncProperty(lengths, async drawn => {
      const { stream } = streamOf(piecesOf(file, ...drawn, 7));
      assert.deepEqual(await openModel(stream), expected);
    }),
    { numRuns: 50, examples: [[[1]], [[headerEnd]], [[8, headerEnd - 8]]] },
  );
});

test('progress goes from the header to the last byte, and knows the total', async () => {
  for (const source of [path, streamOf(piecesOf(file, 500)).stream]) {
    const calls: [number, number][] = [];
    await openModel(source, { onProgress: (numBytes, total) => calls.push([numBytes, total]) });
    assert.deepEqual(calls.at(-1), [file.length, file.length]);
    assert.ok(
      calls.every(([numBytes, total], i) => total === file.length && numBytes >= (calls[i - 1]?.[0] ?? headerEnd)),
    );
    if (source !== path) assert.equal(calls.length, 1 + Math.ceil(file.length / 500) - Math.ceil(headerEnd / 500));
  }
});

test('a file that is too short or too long is refused, whether or not its length is known', async () => {
  const longer = Uint8Array.from([...file, 0]);
  const lengths = [...Array(40).keys(), headerEnd - 1, headerEnd, headerEnd + 1, file.length - 1];
  for (const bytes of [longer, ...lengths.map(length => file.slice(0, length))]) {
    await assert.rejects(openModel(new Blob([bytes])), SafetensorsError, `Blob of ${bytes.length}`);
    await assert.rejects(
      openModel(streamOf(piecesOf(bytes, 300)).stream),
      SafetensorsError,
      `stream of ${bytes.length}`,
    );
  }
  const { stream } = streamOf(piecesOf(file.subarray(0, headerEnd + 5), 300));
  const dataLength = file.length - headerEnd;
  await assert.rejects(openModel(stream), {
    message: `"data" expected ${dataLength} bytes for its tensors, got 5`,
  });
});

test('what does not fit is refused by its header, before a weight has come', async () => {
  const shapes = shapesOf(TINY);
  const { 'model.norm.bias': _, ...without } = shapes;
  const wrong: [Uint8Array, RegExp][] = [
    [tinyModelFile({}, { config: JSON.stringify({ ...TINY, model_type: 'gpt2' }) }), /^"config.model_type" expected /],
    [tinyModelFile({}, { shapes: without }), /^"model.norm.bias" expected a tensor of shape \[6\], got none$/],
    [tinyModelFile({}, { shapes: { ...shapes, 'lm_head.weight': [256, 6] } }), /^"lm_head.weight" expected no tensor/],
  ];
  for (const [bytes, message] of wrong) {
    const end = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const { stream, seen } = streamOf([bytes.subarray(0, end)], true);
    await assert.rejects(openModel(stream), error => message.test((error as Error).message));
    assert.notEqual(seen.cancelled, undefined, 'the stream is let go');
  }
  // A Blob that says another length than its header.
  const { stream, seen } = streamOf([file.subarray(0, headerEnd), file.subarray(headerEnd)]);
  await assert.rejects(openModel({ size: file.length - 4, stream: () => stream }), SafetensorsError);
  assert.equal(seen.numPulled, 1);
});

test('a damaged file gives the error that its whole bytes give', async () => {
  let numRefused = 0;
  const damage = fc.record({ at: fc.integer({ min: 0, max: file.length - 1 }), bit: fc.integer({ min: 0, max: 7 }) });
  await fc.assert(
    fc.asyncProperty(damage, async ({ at, bit }) => {
      const damaged = file.slice();
      damaged[at] ^= 1 << bit;
      const outcome = (load: () => unknown) =>
        Promise.resolve()
          .then(load)
          .catch(error => `${error.name}: ${error.message}`);
      const expected = await outcome(() => loadModel(damaged));
      if (typeof expected === 'string') numRefused++;
      assert.deepEqual(await outcome(() => openModel(new Blob([damaged]))), expected);
    }),
    { numRuns: 100, examples: [[{ at: 7, bit: 7 }], [{ at: 9, bit: 0 }], [{ at: file.length - 1, bit: 6 }]] },
  );
  assert.ok(numRefused > 0);
});

test('bytes that cannot be had are a SourceError with its cause', async () => {
  await assert.rejects(openModel(join(folder, 'none')), error => {
    assert.ok(error instanceof SourceError && (error.cause as NodeJS.ErrnoException).code === 'ENOENT');
    return /^"source" expected all of its bytes, got .*none: /.test(error.message);
  });
  await assert.rejects(openModel(folder), SourceError); // a folder
  await serving(
    (_, response) => response.writeHead(404).end('no'),
    address =>
      assert.rejects(openModel(address), /^SourceError: "source" expected status 200 and a body, got 404 from http/),
  );
  let gone = '';
  await serving(withLength, async address => {
    gone = address;
  });
  await assert.rejects(openModel(gone), SourceError); // nobody listens
  await serving(
    (_, response) => {
      response.writeHead(200, { 'content-length': file.length }).write(file.subarray(0, headerEnd + 9));
      setTimeout(() => response.destroy(), 20);
    },
    address =>
      assert.rejects(openModel(address), /^SourceError: .* that broke after \d+ bytes \(its server gave no strong /),
  );
  const broken = new ReadableStream({ pull: controller => controller.error(new Error('pulled out')) });
  await assert.rejects(openModel(broken), /^SourceError: .* after 0 bytes: Error: pulled out$/);
});

test('an abort ends the loading with its reason, and lets the source go', async () => {
  const reason = new Error('enough');
  await assert.rejects(openModel(path, { signal: AbortSignal.abort(reason) }), reason);

  const waiting = new AbortController();
  const { stream, seen } = streamOf([file.subarray(0, headerEnd + 9)], true);
  const options = { signal: waiting.signal, onProgress: () => setTimeout(() => waiting.abort(reason), 5) };
  await assert.rejects(openModel(stream, options), reason);
  assert.equal(seen.cancelled, reason);

  const early = new AbortController();
  await assert.rejects(openModel(path, { signal: early.signal, onProgress: () => early.abort(reason) }), reason);
  assert.ok(!numOpen(path), 'the file is closed');

  let closed: Promise<unknown> | undefined;
  await serving(
    (_, response) => {
      closed = once(response, 'close');
      response.writeHead(200, { 'content-length': file.length }).write(file.subarray(0, headerEnd + 9));
    },
    async address => {
      const late = new AbortController();
      await assert.rejects(openModel(address, { signal: late.signal, onProgress: () => late.abort(reason) }), reason);
      await closed;
    },
  );
  const failing = { onProgress: () => assert.fail(reason) };
  await assert.rejects(openModel(path, failing), reason);
  assert.ok(!numOpen(path), 'the file is closed');
});

test('two loads at once do not know of each other', async () => {
  const aborted = new AbortController();
  const [first, second, third] = await Promise.allSettled([
    openModel(path),
    openModel(path, { signal: aborted.signal, onProgress: () => aborted.abort() }),
    openModel(path),
  ]);
  assert.equal(second.status, 'rejected');
  for (const load of [first, third]) assert.deepEqual(load.status === 'fulfilled' && load.value, loadModel(file));
});

test('wrong arguments are refused by name', async () => {
  const wrong: [unknown, unknown, RegExp][] = [
    [7, {}, /^TypeError: "source" expected a path, URL, Blob or ReadableStream, got 7$/],
    [null, {}, /^TypeError: "source" expected /],
    [path, 7, /^TypeError: "options" expected an object, got 7$/],
    [path, { signal: 'stop' }, /^TypeError: "options.signal" expected an object, got "stop"$/],
    [path, { onProgress: 1 }, /^TypeError: "options.onProgress" expected a function, got 1$/],
    [
      new ReadableStream({ pull: c => c.enqueue('text') }),
      {},
      /^TypeError: "source" expected a Uint8Array, got "text"$/,
    ],
  ];
  for (const [source, options, message] of wrong) {
    await assert.rejects(openModel(source as ModelSource, options as object), message);
  }
});

test('loading the shipped model never holds its file', () => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--expose-gc', '--input-type=module', '--eval', MEASURE],
    { encoding: 'utf8', cwd: new URL('../../', import.meta.url) },
  );
  assert.equal(status, 0, stderr);
  const { peak, weights, largest, chunk } = JSON.parse(stdout);
  const allowed = weights + 2 * largest + 3 * chunk;
  assert.ok(peak <= allowed, `${peak} bytes at the peak, of which the weights are ${weights}; allowed ${allowed}`);
});

/** Bytes in buffers while a model of many tensors loads, garbage collected at each piece. */
const MEASURE = `
import { openModel } from 'xmoe/model';
const before = process.memoryUsage().arrayBuffers;
const inUse = () => { gc(); return process.memoryUsage().arrayBuffers - before; };
let peak = 0;
const path = 'models/xmoe-gpt.safetensors';
const model = await openModel(path, { onProgress: () => { peak = Math.max(peak, inUse()); } });
const sizes = [];
const seen = new Set();
const visit = value => {
  if (ArrayBuffer.isView(value)) {
    if (!seen.has(value.buffer)) sizes.push(value.buffer.byteLength);
    seen.add(value.buffer);
  } else if (typeof value === 'object' && value !== null) Object.values(value).forEach(visit);
};
visit(model);
const weights = sizes.reduce((a, b) => a + b, 0);
console.log(JSON.stringify({ peak, weights, largest: Math.max(...sizes), chunk: 2 ** 20 }));
`;
