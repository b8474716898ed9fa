/** The language model, of a few weights. */
import { encode, evaluate, generate, loadModel, openModel, run } from 'xmoe/model';
import { SafetensorsError } from 'xmoe/safetensors';
import { TINY, tinyModelFile } from '../../tiny-model.js';
import { type Check, expect, expectNear, rejectionOf, thrownBy } from './check.js';

const NUM_EMBEDDINGS = TINY.vocab_size * TINY.hidden_size;

export const modelChecks: readonly Check[] = [
  {
    feature: 'xmoe/model',
    name: 'a model that knows nothing needs 8 bits for a byte',
    run() {
      const zeros = { 'model.embed_tokens.weight': Array<number>(NUM_EMBEDDINGS).fill(0) }; // the head too: all logits are 0
      const { bitsPerByte } = evaluate(loadModel(tinyModelFile({}, { weights: zeros })), encode('in the beginning'));
      expectNear(bitsPerByte, 8, 1e-12, 'bits per byte');
    },
  },
  {
    feature: 'xmoe/model',
    name: 'greedy text is the likeliest byte each time',
    run() {
      const model = loadModel(tinyModelFile());
      const prompt = encode('abc');
      const written = [...generate(model, prompt, { maxTokens: 5, temperature: 0 })].map(({ byte }) => byte);
      const text = Uint8Array.from([...prompt, ...written]);
      const { logits } = run(model, text);
      written.forEach((byte, i) => {
        const start = (prompt.length + i - 1) * logits.cols;
        const row = logits.data.subarray(start, start + logits.cols);
        expect(row.indexOf(Math.max(...row)) === byte, `byte ${i} to be the likeliest, got ${byte}`);
      });
    },
  },
  {
    feature: 'xmoe/model',
    name: 'the threshold is a dial: one expert at 0, all of them in dense mode',
    run() {
      const model = loadModel(tinyModelFile());
      const expertsAt = (threshold: number | 'dense') =>
        evaluate(model, encode('in the beginning'), { threshold }).expertsPerToken.join();
      expect(expertsAt(0) === '1,1', `1 expert in both layers, got ${expertsAt(0)}`);
      expect(expertsAt('dense') === '5,5', `5 experts in both layers, got ${expertsAt('dense')}`);
    },
  },
  {
    feature: 'xmoe/model',
    name: 'a truncated model file is refused',
    run() {
      const error = thrownBy(() => loadModel(tinyModelFile().slice(0, -1)));
      expect(error instanceof SafetensorsError, `a SafetensorsError, got ${error}`);
    },
  },
  {
    feature: 'xmoe/model',
    name: 'a model that arrives, whole or in pieces, is that of its bytes',
    async run() {
      const file = tinyModelFile();
      const expected = JSON.stringify(loadModel(file));
      for (const source of [new Blob([file]), new Response(file).body!, streamOf(file, 999)]) {
        let last = '';
        const onProgress = (numBytes: number, total: number) => {
          last = `${numBytes} of ${total}`;
        };
        const model = await openModel(source, { onProgress });
        expect(JSON.stringify(model) === expected, 'the same weights');
        expect(last === `${file.length} of ${file.length}`, `progress to the end, got ${last}`);
      }
    },
  },
  {
    feature: 'xmoe/model',
    name: 'loading ends when it is aborted, and at a file that ends too early',
    async run() {
      const abort = new AbortController();
      const options = { signal: abort.signal, onProgress: () => abort.abort(new Error('enough')) };
      const aborted = await rejectionOf(openModel(streamOf(tinyModelFile(), 999), options));
      expect(aborted.message === 'enough', `the reason of the abort, got ${aborted}`);
      const truncated = await rejectionOf(openModel(streamOf(tinyModelFile().slice(0, -1), 999)));
      expect(truncated instanceof SafetensorsError, `a SafetensorsError, got ${truncated}`);
    },
  },
];

function streamOf(bytes: Uint8Array, pieceLength: number): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, at + pieceLength));
      at += pieceLength;
    },
  });
}
