/** A page whose policy forbids workers has one thread, and the reason. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { layerOfSizes } from 'xmoe/cases';
import { bits } from '../bits.js';
import { withThreads } from '../slow-layer.js';

test('a page whose policy forbids workers has one thread, and the reason', async () => {
  const [one, refused] = await Promise.all([1, 2].map(withThreads));
  assert.equal(refused.info.threads, 1);
  assert.match(refused.info.notUsed.threads!, /^no worker could be started: /);
  const { x, weights, config } = layerOfSizes(20, 3, 9, 11);
  const [expected, y] = [one, refused].map(backend => bits(backend.load(weights, config).forward(x)));
  assert.equal(y, expected);
});
