/** Target simd has the same bits on every machine and in every engine: those that were recorded. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFile } from './environment.js';
import { digests } from './simd-bits.js';

test('target simd gives the recorded bits', async () => {
  const recorded = JSON.parse(new TextDecoder().decode(await readFile('simd-bits.json')));
  const found = await digests();
  for (const [name, digest] of Object.entries(found)) assert.equal(digest, recorded[name], name);
  assert.equal(Object.keys(recorded).length, Object.keys(found).length);
});
