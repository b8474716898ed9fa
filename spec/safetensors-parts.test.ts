/** A file of which parts are read: the tensors of the whole file, and no bytes but theirs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readSafetensors, SafetensorsError, type Tensor, writeSafetensors } from 'xmoe/safetensors';
import { readParts } from './model-internals.js';
import { asyncProperty } from './property.js';

const shape = fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 3 });
const file = fc
  .array(fc.record({ shape, dtype: fc.constantFrom('F64' as const, 'F32' as const, 'F16' as const, 'U8' as const) }), {
    minLength: 1,
    maxLength: 8,
  })
  .map(list => {
    const sizes = { F64: 8, F32: 4, F16: 2, U8: 1 };
    const tensors = new Map<string, Tensor>();
    let next = 0;
    list.forEach(({ shape, dtype }, i) => {
      const length = shape.reduce((a, b) => a * b, sizes[dtype]);
      tensors.set(`t${i}`, { dtype, shape, bytes: Uint8Array.from({ length }, () => next++ % 251) });
    });
    return writeSafetensors({ tensors, metadata: new Map([['of', 'a test']]) });
  });

function reading(bytes: Uint8Array) {
  const asked: [number, number][] = [];
  const read = async (start: number, end: number) => {
    assert.ok(start <= end && end <= bytes.length);
    asked.push([start, end]);
    return bytes.slice(start, end);
  };
  return { asked, read };
}

asyncProperty(
  'any tensors, and any elements, are those of the whole file',
  fc.record({ bytes: file, chosen: fc.array(fc.nat(9)) }),
  async ({ bytes, chosen }, reach) => {
    const { tensors, metadata } = readSafetensors(bytes);
    const { asked, read } = reading(bytes);
    const parts = await readParts(read, bytes.length);
    assert.deepEqual(parts.metadata, metadata);
    assert.equal(parts.numBytes, bytes.length);
    assert.equal(asked.length, 2, 'the header');

    const names = new Set(chosen.map(i => `t${i}`).filter(name => tensors.has(name)));
    const got = new Map<string, Tensor>();
    for await (const [name, tensor] of parts.tensors(names, read)) got.set(name, tensor);
    assert.deepEqual(got, new Map([...tensors].filter(([name]) => names.has(name))));
    const numAsked = asked.slice(2).reduce((sum, [start, end]) => sum + end - start, 0);
    assert.equal(numAsked, parts.numBytesOf(names));
    assert.ok(asked.length - 2 <= names.size);
    if (asked.length - 2 < [...got.values()].filter(({ bytes }) => bytes.length > 0).length) reach('neighbours in one');

    for (const [name, { dtype, shape, bytes: all }] of tensors) {
      for (let i = 0; i < shape[0]; i++) {
        const size = all.length / shape[0];
        const element = await parts.element(name, i, read);
        assert.deepEqual(element, { dtype, shape: shape.slice(1), bytes: all.slice(i * size, (i + 1) * size) });
        reach('an element');
      }
    }
  },
  ['neighbours in one', 'an element'],
);

test('large tensors come in spans of 4 MiB, and neighbours share them', async () => {
  const tensor = (length: number): Tensor => ({ dtype: 'U8', shape: [length], bytes: new Uint8Array(length).fill(7) });
  const tensors = new Map([
    ['a', tensor(2 ** 21)],
    ['b', tensor(2 ** 22 + 5)],
    ['c', tensor(9)],
    ['d', tensor(3)],
  ]);
  const bytes = writeSafetensors({ tensors, metadata: new Map() });
  const { asked, read } = reading(bytes);
  const parts = await readParts(read, bytes.length);
  for await (const [name, { bytes }] of parts.tensors(['a', 'b', 'd'], read)) {
    assert.deepEqual(bytes, tensors.get(name)!.bytes);
  }
  assert.deepEqual(
    asked.slice(2).map(([start, end]) => end - start),
    [2 ** 22, 2 ** 21 + 5, 3],
  );
});

test('a header that does not fit the file is refused as that of a whole file is', async () => {
  const bytes = writeSafetensors({
    tensors: new Map([['a', { dtype: 'U8', shape: [9], bytes: new Uint8Array(9) }]]),
    metadata: new Map(),
  });
  for (let length = 0; length < bytes.length; length++) {
    const short = bytes.slice(0, length);
    let expected: unknown;
    try {
      readSafetensors(short);
    } catch (error) {
      expected = error;
    }
    assert.ok(expected instanceof SafetensorsError);
    await assert.rejects(readParts(reading(short).read, length), {
      name: 'SafetensorsError',
      message: expected.message,
    });
  }
});
