/** What the kernels are stored as is read as zlib wrote it. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { constants, deflateRawSync } from 'node:zlib';
import fc from 'fast-check';
import { inflate } from './internals.js';
import { property } from './property.js';

/** Of few different bytes, with repetitions near and far; or of all bytes. */
const data = fc
  .tuple(fc.array(fc.array(fc.nat(3), { maxLength: 40 }), { maxLength: 9 }), fc.array(fc.nat(8), { maxLength: 2000 }))
  .map(([words, order]) => Uint8Array.from(order.flatMap(i => words[i] ?? [i * 29])));
const noise = fc.uint8Array({ maxLength: 3000 });

property(
  'bytes are inflated as zlib deflated them, in blocks of every kind',
  fc.tuple(
    fc.oneof(data, noise),
    fc.constantFrom(0, 1, 9),
    fc.constantFrom(constants.Z_DEFAULT_STRATEGY, constants.Z_HUFFMAN_ONLY, constants.Z_RLE, constants.Z_FIXED),
  ),
  ([bytes, level, strategy], reach) => {
    const deflated = deflateRawSync(bytes, { level, strategy });
    reach(['stored', 'fixed', 'dynamic'][(deflated[0] >> 1) & 3]);
    assert.deepEqual(inflate(deflated, bytes.length), Uint8Array.from(bytes));
  },
  ['stored', 'fixed', 'dynamic'],
);

test('long and far repetitions, and more than one block', () => {
  const kernels = readFileSync(new URL('../../dist/wasm/simd.wasm', import.meta.url));
  const bytes = Buffer.concat([kernels, Buffer.alloc(100_000, 7), kernels.subarray(0, 32_000), kernels]);
  for (const memLevel of [1, 9]) {
    assert.ok(Buffer.from(inflate(deflateRawSync(bytes, { memLevel }), bytes.length)).equals(bytes));
  }
});

test('what is no DEFLATE, too short or too long is refused', () => {
  const deflated = deflateRawSync(Buffer.from('in the beginning, in the beginning'));
  assert.throws(() => inflate(deflated, 33), { message: '"data" expected 33 bytes deflated, got 34' });
  assert.throws(() => inflate(deflated, 35), { message: '"data" expected 35 bytes deflated, got 34' });
  assert.throws(() => inflate(new Uint8Array(99).fill(0b101), 9), /^Error: "data" expected DEFLATE, got a code that/);
});
