/** The figures of shown bytes, without a page. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encode, evaluate, loadModel } from 'xmoe/model';
import { openRuntime } from 'xmoe/runtime';
import { tinyModelFile } from '../../spec/tiny-model.js';
import { Tally } from '../app/tally.js';

/** Of every byte of it the cost is the same: with every expert. */
const TEXT = encode('In the beginning was the text');

for (const fields of [{}, { hidden_act: 'swiglu' }, { skip_expert: true }]) {
  test(`what is written costs what reading it does, however often it is read again: ${JSON.stringify(fields)}`, async () => {
    const file = new Uint8Array(tinyModelFile(fields));
    const runtime = await openRuntime(new Blob([file]));
    const tally = new Tally(runtime.config);
    // The context is full after some bytes, and half of it is read again, and again.
    for await (const token of runtime.generate(TEXT.subarray(0, 5), { threshold: 'dense', maxTokens: 40 }))
      tally.add(token);
    runtime.dispose();
    const { flopsShare, expertsPerToken } = evaluate(loadModel(file), TEXT, { threshold: 'dense' });
    assert.ok(Math.abs(tally.flopsShare / flopsShare - 1) < 1e-12, `${tally.flopsShare}, ${flopsShare}`);
    assert.deepEqual(tally.expertsPerByte, expertsPerToken);
    assert.equal(tally.numPredicted, 40);
  });
}

test('of no byte every figure is 0', async () => {
  const runtime = await openRuntime(new Blob([new Uint8Array(tinyModelFile())]));
  const { bitsPerByte, flopsShare, expertsPerByte } = new Tally(runtime.config);
  runtime.dispose();
  assert.deepEqual(
    { bitsPerByte, flopsShare, expertsPerByte },
    { bitsPerByte: 0, flopsShare: 0, expertsPerByte: [0, 0] },
  );
});
