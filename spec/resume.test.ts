/** Addresses whose connections break: the same bytes as over one that holds, or an error, and never two versions of a file. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { loadModel, openModel, SourceError } from 'xmoe/model';
import { type Answering, answering, ETAG, serving } from './broken-server.js';
import { openSource } from './model-internals.js';
import { asyncProperty } from './property.js';
import { tinyModelFile } from './tiny-model.js';

const AT_ONCE = [0, 0, 0, 0];

/** Bytes of which no two neighbours of any distance below 251 are alike in order. */
function bytesOf(length: number, version = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i + version * 7 + Math.floor(i / 251)) % 251);
}

/** All bytes that come, and the error that ends them. */
async function arrival(address: string, pauses: readonly number[] = AT_ONCE) {
  const parts: Uint8Array[] = [];
  let error: unknown;
  try {
    for await (const chunk of (await openSource(address, undefined, pauses)).chunks) parts.push(chunk);
  } catch (caught) {
    error = caught;
  }
  return { bytes: new Uint8Array(Buffer.concat(parts)), error };
}

const modified = { 'last-modified': 'Tue, 03 Mar 2026 10:00:00 GMT' };

const length = fc.integer({ min: 1, max: 100_000 });
const cut = fc.oneof(
  { weight: 1, arbitrary: fc.constant(0) },
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 9 }) },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 50_000 }) },
);
/** The first answer comes, and never do more in a row bring nothing than there are tries. */
const cuts = fc
  .tuple(fc.integer({ min: 1, max: 50_000 }), fc.array(cut, { maxLength: 6 }))
  .map(([first, later]) => [first, ...later])
  .filter(all => !all.join().includes('0,0,0,0'));

asyncProperty(
  'a cable that is pulled anywhere, again and again, changes no byte',
  fc.record({ length, cuts, headers: fc.constantFrom(ETAG, modified), numLengths: fc.constantFrom(0, 1, 9) }),
  async ({ length, cuts, headers, numLengths }, reach) => {
    const bytes = bytesOf(length);
    await serving(answering({ bytes, cuts, headers, numLengths }), async (address, seen) => {
      const { bytes: got, error } = await arrival(address);
      assert.ifError(error);
      assert.deepEqual(got, bytes);
      assert.deepEqual(seen[0], { range: undefined, ifRange: undefined });
      let last = 0;
      for (const { range, ifRange } of seen.slice(1)) {
        const first = Number(/^bytes=(\d+)-$/.exec(range!)![1]);
        assert.ok(first >= last && first <= length, `${range} after ${last}`);
        assert.equal(ifRange, Object.values(headers)[0]);
        last = first;
      }
      if (seen.length > 1) reach('a second connection');
      if (seen.length > 3) reach('a fourth connection');
    });
  },
  ['a second connection', 'a fourth connection'],
  { share: 0.25 },
);

asyncProperty(
  'where a server knows no ranges, the bytes that were here are skipped',
  fc.record({
    length,
    cuts: fc.uniqueArray(fc.integer({ min: 1, max: 50_000 }), { maxLength: 4 }),
    numLengths: fc.constantFrom(0, 1, 9),
  }),
  async ({ length, cuts, numLengths }, reach) => {
    const bytes = bytesOf(length);
    const ascending = cuts.toSorted((a, b) => a - b);
    await serving(answering({ bytes, cuts: ascending, knowsRanges: false, numLengths }), async (address, seen) => {
      assert.deepEqual(await arrival(address), { bytes, error: undefined });
      if (seen.length > 1) reach('the start of a second answer');
    });
  },
  ['the start of a second answer'],
  { share: 0.25 },
);

asyncProperty(
  'two versions of a file are never mixed',
  fc.record({
    length: fc.integer({ min: 2000, max: 50_000 }),
    lengthAfter: fc.oneof(
      { weight: 3, arbitrary: fc.integer({ min: 1, max: 1000 }) },
      { weight: 1, arbitrary: fc.integer({ min: 2000, max: 50_000 }) },
    ),
    cut: fc.integer({ min: 1, max: 1999 }),
    server: fc.constantFrom('heeds If-Range', 'heeds Range alone', 'knows no ranges'),
  }),
  async ({ length, lengthAfter, cut, server }, reach) => {
    const knowsRanges = server !== 'knows no ranges';
    const isPart = server === 'heeds Range alone';
    const before = answering({ bytes: bytesOf(length), cuts: [cut] });
    const after = answering({ bytes: bytesOf(lengthAfter, 1), headers: { etag: '"two"' }, knowsRanges });
    const answer: Answering = (request, response, index) => {
      if (index > 0 && isPart) delete request.headers['if-range'];
      return (index === 0 ? before : after)(request, response, index);
    };
    await serving(answer, async (address, seen) => {
      const { bytes, error } = await arrival(address);
      assert.ok(error instanceof SourceError);
      const isPast = isPart && bytes.length >= lengthAfter;
      assert.match(
        error.message,
        isPast ? /, got 416 from/ : /of the same version, got version "two" instead of "one"/,
      );
      if (isPast) reach('a file that is too short by now');
      assert.deepEqual(bytes, bytesOf(length).subarray(0, bytes.length));
      assert.equal(seen.length, 2, 'it is not tried again');
      reach(isPart ? 'another version, as a part' : 'another version, from its start');
    });
  },
  ['another version, as a part', 'another version, from its start', 'a file that is too short by now'],
  { share: 0.25 },
);

test('a model over a bad line is the same model, and its progress never goes back', async () => {
  const file = tinyModelFile();
  const calls: number[] = [];
  await serving(answering({ bytes: file, cuts: [900, 1100, 200] }), async (address, seen) => {
    const model = await openModel(address, { onProgress: numBytes => calls.push(numBytes) });
    assert.deepEqual(model, loadModel(file));
    assert.equal(seen.length, 4);
  });
  assert.ok(calls.every((numBytes, i) => numBytes >= (calls[i - 1] ?? 0)));
  assert.equal(calls.at(-1), file.length);
});

test('tries in a row without a new byte are counted, and one byte begins the count anew', async () => {
  const bytes = bytesOf(5000);
  const never = answering({ bytes, cuts: [1000, ...Array(50).fill(0)] });
  await serving(never, async (address, seen) => {
    const { bytes: got, error } = await arrival(address);
    assert.deepEqual(got, bytes.subarray(0, 1000));
    assert.match(`${error}`, /^SourceError: .* got http.* that broke after 1000 bytes \(4 tries in vain\): TypeError/);
    assert.ok((error as Error).cause instanceof Error);
    assert.equal(seen.length, 5);
  });
  const slow = answering({ bytes, cuts: [1000, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0] });
  await serving(slow, async (address, seen) => {
    assert.deepEqual(await arrival(address), { bytes, error: undefined });
    assert.equal(seen.length, 13);
  });
  // From its start again and again, and never as far as before.
  const circling = answering({ bytes, cuts: [1000, ...Array(50).fill(999)], knowsRanges: false });
  await serving(circling, async (address, seen) => {
    assert.match(`${(await arrival(address)).error}`, /4 tries in vain/);
    assert.equal(seen.length, 5);
  });
});

test('an abort ends the pause before another try', async () => {
  const reason = new Error('enough');
  const aborting = new AbortController();
  await serving(answering({ bytes: bytesOf(5000), cuts: [1000] }), async (address, seen) => {
    const { chunks } = await openSource(address, aborting.signal, [2 ** 30]);
    await chunks.next();
    const waiting = chunks.next();
    setTimeout(() => aborting.abort(reason), 20);
    await assert.rejects(waiting, reason);
    assert.equal(seen.length, 1);
  });
});

test('without a validator that holds byte by byte, nothing is put together', async () => {
  const bytes = bytesOf(5000);
  const now = new Date().toUTCString();
  const wrong: Record<string, string>[] = [
    {},
    { etag: 'W/"one"' },
    { etag: 'W/"one"', ...modified },
    { 'last-modified': now, date: now },
    { 'last-modified': 'yesterday' },
  ];
  for (const headers of wrong) {
    await serving(answering({ bytes, headers, cuts: [1000] }), async (address, seen) => {
      const { error } = await arrival(address);
      assert.match(
        `${error}`,
        /^SourceError: .* after 1000 bytes \(its server gave no strong "etag" or "last-modified"/,
      );
      assert.equal(seen.length, 1, JSON.stringify(headers));
    });
  }
});

test('a file that comes compressed is decompressed, and its connection not replaced', async () => {
  const bytes = bytesOf(50_000);
  const packed = gzipSync(bytes);
  const headers = { ...ETAG, 'content-encoding': 'gzip' };
  await serving(answering({ bytes: packed, headers }), async address => {
    assert.deepEqual(await arrival(address), { bytes, error: undefined });
    assert.equal((await openSource(address, undefined)).length, undefined);
  });
  await serving(answering({ bytes: packed, headers, cuts: [packed.length - 9] }), async (address, seen) => {
    assert.ok((await arrival(address)).error instanceof SourceError);
    assert.equal(seen.length, 1);
  });
});

test('a server that cannot answer at present is asked again; a refusal is the end', async () => {
  const bytes = bytesOf(5000);
  const honest = answering({ bytes, cuts: [1000] });
  const failing =
    (...statuses: number[]): Answering =>
    (request, response, index) => {
      const status = statuses[index - 1];
      if (status === undefined) honest(request, response, index);
      else response.writeHead(status).end('no');
    };
  await serving(failing(503, 429, 500), async (address, seen) => {
    assert.deepEqual(await arrival(address), { bytes, error: undefined });
    assert.equal(seen.length, 5);
  });
  for (const status of [404, 403, 410, 416, 204]) {
    await serving(failing(status), async (address, seen) => {
      const { error } = await arrival(address);
      assert.match(
        `${error}`,
        new RegExp(`^SourceError: .* expected status 206 for bytes from 1000 on, got ${status} from`),
      );
      assert.equal(seen.length, 2);
    });
  }
});

test('a part that is not what was asked for is refused, however long it is', async () => {
  const bytes = bytesOf(5000);
  const honest = answering({ bytes, cuts: [1000] });
  const range = /expected bytes from 1000 on, got /;
  const lies: [Record<string, string>, RegExp][] = [
    [{ 'content-range': 'bytes 999-4999/5000' }, range],
    [{ 'content-range': 'bytes 1001-4999/5000' }, range],
    [{ 'content-range': 'bytes 1000-5000/5000' }, range],
    [{ 'content-range': 'bytes 1000-999/5000' }, range],
    [{ 'content-range': 'bytes 1000-4999/*' }, range],
    [{ 'content-range': 'items 1000-4999/5000' }, range],
    [{}, range],
    [{ 'content-range': 'bytes 1000-4999/5000', 'content-encoding': 'gzip' }, /got a compressed part from/],
    [{ 'content-range': 'bytes 1000-5999/6000' }, /a file of 6000 bytes instead of 5000 from/],
    [{ 'content-range': 'bytes 1000-3999/4000' }, /a file of 4000 bytes instead of 5000 from/],
    [{ 'content-range': 'bytes 1000-4999/5000', etag: 'W/"one"' }, /got version unknown instead of "one"/],
    [{ 'content-range': 'bytes 1000-4999/5000' }, /expected an answer to end at byte 5000, got more/],
    [{ 'content-range': 'bytes 1000-2999/5000' }, /expected an answer to end at byte 3000, got more/],
  ];
  for (const [headers, message] of lies) {
    let closed: Promise<unknown> | undefined;
    const endless: Answering = (request, response, index) => {
      if (index === 0) return honest(request, response, index);
      closed = once(response, 'close');
      response.writeHead(206, { ...ETAG, ...headers });
      const more = () => {
        while (!response.destroyed && response.write(new Uint8Array(10_000)));
      };
      response.on('drain', more);
      more();
    };
    await serving(endless, async address => {
      const { error } = await arrival(address);
      assert.ok(error instanceof SourceError);
      assert.match(error.message, message);
      await closed;
    });
  }
});

test('a part that is shorter than asked for is gone on from', async () => {
  const bytes = bytesOf(5000);
  const honest = answering({ bytes, cuts: [1000] });
  const stingy: Answering = (request, response, index) => {
    if (index > 0)
      request.headers.range = request.headers.range!.replace(
        /(\d+)-$/,
        (_, first) => `${first}-${Math.min(4999, +first + 999)}`,
      );
    honest(request, response, index);
  };
  await serving(stingy, async (address, seen) => {
    assert.deepEqual(await arrival(address), { bytes, error: undefined });
    assert.equal(seen.length, 5);
  });
});
