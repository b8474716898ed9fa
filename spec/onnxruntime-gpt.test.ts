/** The language model as an ONNX graph, where ONNX Runtime is installed beside the bench: the bench times what computes the same. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { loadModel, run } from 'xmoe/model';
import { runtimes } from '../bench/contenders/onnxruntime.js';
import { expertsForms, languageModel } from '../bench/onnx-gpt.js';
import { openOnnxruntime } from '../bench/readers/onnxruntime.js';
import { RUNS } from './environment.js';
import { missing } from './parties/onnxruntime.js';
import { TINY, tinyModelFile } from './tiny-model.js';

const root = new URL('../../', import.meta.url);
const bytesOf = (path: string) => new Uint8Array(readFileSync(new URL(path, root)));
const model = loadModel(bytesOf('models/xmoe-gpt.safetensors'));

/** Logits reach 2^5, float32 rounds them by 2^-19 of that at most, and some dozens of such roundings follow one another. */
const TOLERANCE = 2 ** -13;

const NUM_BYTES = 48;

/** With RUNS of 2000 or more all of them. */
const texts = RUNS >= 2000 ? ['sotu', 'moby', 'kjv'] : ['sotu'];

for (const runtime of runtimes) {
  for (const experts of expertsForms) {
    for (const text of texts) {
      test(`${runtime}, experts by ${experts}: the logits are the reference's, ${text}`, async t => {
        const why = missing(runtime);
        if (why) return t.skip(why);
        const ids = bytesOf(`models/text/${text}.txt`).subarray(0, NUM_BYTES);
        const expected = run(model, ids).logits.data;
        const reader = await openOnnxruntime(runtime, model, [experts, experts], 'all', 1);
        const largestError = async (sizes: readonly number[]) => {
          reader.clear();
          let [largest, start] = [0, 0];
          for (const size of sizes) {
            const logits = await reader.read(ids.subarray(start, start + size));
            assert.equal(logits.length, 256 * size);
            logits.forEach((z: number, i: number) => {
              largest = Math.max(largest, Math.abs(z - expected[256 * start + i]));
            });
            start += size;
          }
          assert.equal(start, NUM_BYTES);
          return largest;
        };
        const steps = new Array(NUM_BYTES).fill(1);
        const calls = experts === 'weights' ? [steps] : [[NUM_BYTES], steps, [30, 1, 1, 16]];
        for (const sizes of calls) {
          const largest = await largestError(sizes);
          t.diagnostic(`${sizes.length} calls: largest difference ${largest.toExponential(1)}`);
          assert.ok(largest <= TOLERANCE, `${sizes.length} calls: largest difference ${largest}`);
        }
        await reader.close();
      });
    }
  }
}

test('the graph is of what the shipped model has, and refuses another', () => {
  const others = [{ hidden_act: 'gelu' }, { capacity_factor: 1 }, { router: 'switch' }];
  for (const fields of others) {
    const other = loadModel(tinyModelFile({ ...TINY, ...fields }));
    assert.throws(() => languageModel(other, { experts: 'rows', logits: 'all' }), RangeError);
  }
});
