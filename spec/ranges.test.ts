/** Parts of a source: those of its bytes, whatever the line; and none where it is not what it was, or lies. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { appendFileSync, mkdtempSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import fc from 'fast-check';
import { type ModelSource, SourceError } from 'xmoe/model';
import { type Answering, answering, ETAG, serving } from './broken-server.js';
import { openRanges } from './model-internals.js';
import { numOpen } from './open-files.js';
import { asyncProperty } from './property.js';

const AT_ONCE = [0, 0, 0, 0];
const LENGTH = 30_000;
const bytes = Uint8Array.from({ length: LENGTH }, (_, i) => (i + Math.floor(i / 251)) % 251);

const folder = mkdtempSync(join(tmpdir(), 'xmoe-ranges-'));
const path = join(folder, 'bytes');
writeFileSync(path, bytes);
after(() => rmSync(folder, { recursive: true }));

const part = fc
  .tuple(
    fc.integer({ min: 0, max: LENGTH }),
    fc.oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: LENGTH })),
  )
  .map(([start, length]): [number, number] => [start, Math.min(LENGTH, start + length)]);

asyncProperty(
  'parts of every source are those of its bytes, one after another or all at once',
  fc.record({
    kind: fc.constantFrom('path', 'URL', 'Blob', 'address', 'address', 'address'),
    parts: fc.array(part, { minLength: 1, maxLength: 6 }),
    atOnce: fc.boolean(),
    cuts: fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 1, max: LENGTH })), { maxLength: 4 }),
  }),
  async ({ kind, parts, atOnce, cuts }, reach) => {
    const check = async (source: ModelSource) => {
      const ranges = await openRanges(source, undefined, AT_ONCE);
      assert.equal(ranges.length, LENGTH);
      const read = async ([start, end]: [number, number]) => {
        assert.deepEqual(await ranges.read(start, end), bytes.slice(start, end));
      };
      if (atOnce) await Promise.all(parts.map(read));
      else for (const each of parts) await read(each);
      await ranges.close();
    };
    if (kind === 'path') await check(path);
    if (kind === 'URL') await check(pathToFileURL(path));
    if (kind === 'Blob') await check(new Blob([bytes]));
    if (kind === 'address') {
      await serving(answering({ bytes, cuts: [Number.POSITIVE_INFINITY, ...cuts] }), async (address, seen) => {
        await check(address);
        assert.deepEqual(seen[0], { range: 'bytes=0-0', ifRange: undefined });
        assert.ok(seen.slice(1).every(({ range, ifRange }) => /^bytes=\d+-\d+$/.test(range!) && ifRange === ETAG.etag));
        if (seen.length > 1 + parts.length) reach('a cable that was pulled');
      });
    }
    if (atOnce && parts.length > 1) reach('reads at once');
  },
  ['a cable that was pulled', 'reads at once'],
  { share: 0.5 },
);

test('a source that is another one by now is refused at the next read', async () => {
  const changing = join(folder, 'changing');
  for (const change of [
    () => truncateSync(changing, LENGTH - 1),
    () => appendFileSync(changing, 'x'),
    () => utimesSync(changing, 1, 1), // as a write within would
  ]) {
    writeFileSync(changing, bytes);
    const ranges = await openRanges(changing, undefined);
    await ranges.read(0, 9);
    change();
    await assert.rejects(
      ranges.read(0, 9),
      /^SourceError: "source" expected a file that stays as it is, got .*changing, /,
    );
    await ranges.close();
  }

  const before = answering({ bytes });
  const after = answering({ bytes: bytes.toReversed(), headers: { etag: '"two"' } });
  for (const heedsIfRange of [true, false]) {
    let isChanged = false;
    const answer: Answering = (request, response, index) => {
      if (!heedsIfRange) delete request.headers['if-range'];
      (isChanged ? after : before)(request, response, index);
    };
    await serving(answer, async (address, seen) => {
      const ranges = await openRanges(address, undefined, AT_ONCE);
      assert.deepEqual(await ranges.read(5, 9), bytes.slice(5, 9));
      isChanged = true;
      await assert.rejects(
        ranges.read(5, 9),
        /^SourceError: .* of the same version, got version "two" instead of "one" from/,
      );
      assert.equal(seen.length, 3);
      isChanged = false; // and back: it is the file that was opened
      assert.deepEqual(await ranges.read(5, 9), bytes.slice(5, 9));
    });
  }

  const blob = { ...blobOf(), slice: () => ({ arrayBuffer: async () => new ArrayBuffer(3) }) };
  await assert.rejects(
    (await openRanges(blob, undefined)).read(0, 4),
    /^SourceError: .* expected 4 bytes of a Blob, got 3$/,
  );
  const gone = { ...blobOf(), slice: () => ({ arrayBuffer: () => Promise.reject(new Error('not readable')) }) };
  await assert.rejects(
    (await openRanges(gone, undefined)).read(7, 9),
    /^SourceError: .* at byte 7: Error: not readable$/,
  );
});

function blobOf() {
  return { size: LENGTH, stream: () => new Blob([bytes]).stream() };
}

test('what cannot be read in parts is refused when it is opened', async () => {
  const open = (source: unknown) => openRanges(source as ModelSource, undefined);
  await assert.rejects(
    open(new Blob([bytes]).stream()),
    /^TypeError: "source" expected a path, URL or Blob, of which parts can be read, got a stream$/,
  );
  await assert.rejects(
    open(blobOf()),
    /^TypeError: "source" expected a Blob, of which parts can be read, got one without "slice"$/,
  );
  await assert.rejects(open(7), /^TypeError: "source" expected a path, URL, Blob or ReadableStream, got 7$/);
  await assert.rejects(open(folder), /^SourceError: "source" expected a file, of which parts can be read, got /);
  await assert.rejects(open(join(folder, 'none')), SourceError);
  const address = await serving(answering({ bytes }), async address => address);
  await assert.rejects(open(address), SourceError); // nobody listens
});

test('a server that knows no ranges, or not which version it has, is refused; a long answer is let go', async () => {
  const partial = (headers: Record<string, string>) => ({
    status: 206,
    headers: { 'content-range': 'bytes 0-0/30000', ...headers },
  });
  const wrong: [{ status: number; headers: Record<string, string> }, RegExp][] = [
    [{ status: 200, headers: ETAG }, /^SourceError: "source" expected status 206 for a part of it, got 200 from/],
    [{ status: 404, headers: {} }, /^SourceError: "source" expected status 206 for bytes from 0 on, got 404 from/],
    [{ status: 416, headers: { 'content-range': 'bytes */0' } }, /, got 416 from/],
    [partial({}), /^SourceError: "source" expected a strong "etag" or a "last-modified", got none from/],
    [
      partial({ etag: 'W/"one"' }),
      /^SourceError: "source" expected a strong "etag" or a "last-modified", got none from/,
    ],
    [
      partial({ ...ETAG, 'content-range': 'bytes 0-1/30000' }),
      /expected bytes from 0 on, got "content-range" bytes 0-1\/30000/,
    ],
    [partial({ ...ETAG, 'content-encoding': 'br' }), /got a compressed part from/],
  ];
  for (const [{ status, headers }, message] of wrong) {
    let closed: Promise<unknown> | undefined;
    await serving(
      (_, response) => {
        closed = once(response, 'close');
        response.writeHead(status, headers).write(new Uint8Array(100)); // and no end
      },
      async address => {
        await assert.rejects(openRanges(address, undefined), message);
        await closed;
      },
    );
  }
});

test('a server that lies about a part is found out', async () => {
  const lies: [number, Record<string, string>, Uint8Array, RegExp][] = [
    [200, ETAG, bytes, /of the same version, got status 200, all of it from/],
    [
      206,
      { ...ETAG, 'content-range': 'bytes 5-9/30000' },
      bytes.slice(4, 14),
      /expected bytes from 4 on, got "content-range" bytes 5-9/,
    ],
    [
      206,
      { ...ETAG, 'content-range': 'bytes 4-14/30000' },
      bytes.slice(4, 14),
      /expected bytes from 4 on, got "content-range" bytes 4-14/,
    ],
    [
      206,
      { ...ETAG, 'content-range': 'bytes 4-13/30001' },
      bytes.slice(4, 14),
      /a file of 30001 bytes instead of 30000/,
    ],
    [206, { ...ETAG, 'content-range': 'bytes 4-13/30000' }, bytes, /expected an answer to end at byte 14, got more/],
    [
      206,
      { ...ETAG, 'content-range': 'bytes 4-13/30000' },
      new Uint8Array(0),
      /that broke after 4 bytes \(4 tries in vain\)/,
    ],
  ];
  for (const [status, headers, body, message] of lies) {
    const honest = answering({ bytes });
    const answer: Answering = (request, response, index) => {
      if (index === 0) honest(request, response, index);
      else response.writeHead(status, headers).end(body);
    };
    await serving(answer, async address => {
      const ranges = await openRanges(address, undefined, AT_ONCE);
      await assert.rejects(ranges.read(4, 14), error => error instanceof SourceError && message.test(error.message));
      assert.deepEqual(await ranges.read(9, 9), new Uint8Array(0), 'nothing is asked for nothing');
    });
  }
});

test('a part outside the source is refused by name', async () => {
  const ranges = await openRanges(path, undefined);
  await assert.rejects(ranges.read(-1, 3), /^RangeError: "start" expected an integer from 0 to 30000, got -1$/);
  await assert.rejects(ranges.read(0.5, 3), RangeError);
  await assert.rejects(ranges.read(4, 3), /^RangeError: "end" expected an integer from 4 to 30000, got 3$/);
  await assert.rejects(ranges.read(4, LENGTH + 1), RangeError);
  await assert.rejects(ranges.read('4' as never, 5), TypeError);
  await ranges.close();
});

test('an abort ends the opening or the one read that it is for', async () => {
  const reason = new Error('enough');
  await assert.rejects(openRanges(path, AbortSignal.abort(reason)), reason);
  const honest = answering({ bytes });
  const silent: Answering = (request, response, index) => {
    if (request.headers.range !== 'bytes=4-13') honest(request, response, index);
  };
  await serving(silent, async address => {
    const ranges = await openRanges(address, undefined);
    const aborting = new AbortController();
    const waiting = ranges.read(4, 14, aborting.signal);
    const other = ranges.read(5, 14, aborting.signal);
    assert.deepEqual(await other, bytes.slice(5, 14));
    aborting.abort(reason);
    await assert.rejects(waiting, reason);
    await assert.rejects(ranges.read(5, 14, aborting.signal), reason);
    assert.deepEqual(await ranges.read(5, 14), bytes.slice(5, 14));
  });
});

test('closing lets the source go, and what is under way is rejected', async () => {
  const closed = /^Error: "source" expected one in use, got one that was closed$/;
  await serving(
    (request, response, index) => index === 0 && answering({ bytes })(request, response, index),
    async address => {
      const ranges = await openRanges(address, undefined);
      const waiting = ranges.read(0, 9);
      await Promise.all([assert.rejects(waiting, closed), ranges.close()]);
      await assert.rejects(ranges.read(0, 9), closed);
    },
  );
  const ranges = await openRanges(path, undefined);
  await Promise.all([assert.rejects(ranges.read(0, LENGTH), closed), ranges.close(), ranges.close()]);
  await assert.rejects(ranges.read(0, 9), closed);
  assert.ok(!numOpen(path), 'the file is closed');
});
