/** ONNX Runtime, native or compiled to WebAssembly: its cache goes from one call to the next as it is. */
import type { Model } from 'xmoe/model';
import { openSession, type Runtime, runtimes, type Tensor, tensorOf } from '../contenders/onnxruntime.js';
import { type ExpertsForm, type GraphOptions, languageModel } from '../onnx-gpt.js';
import type { Reader, ReaderContender } from './reader.js';

/** The form of the experts for prompts, and the one for a byte alone. */
type Forms = readonly [prompt: ExpertsForm, byte: ExpertsForm];

/**
 * The first was the fastest, native and not, prompt and byte; the others are one graph for both.
 *
 * Beside them were tried, and gained nothing: attention by `GroupQueryAttention` (on a cache that it shares, and much slower in
 * WebAssembly) and by `MultiHeadAttention`; outputs that are there beforehand, which in WebAssembly are not even filled;
 * other settings of a session for memory.
 */
const forms: ReadonlyMap<string, Forms> = new Map([
  ['rows, weights', ['rows', 'weights']],
  ['rows', ['rows', 'rows']],
  ['all', ['all', 'all']],
  ['operator', ['operator', 'operator']],
]);

export const onnxruntime: readonly ReaderContender[] = runtimes.flatMap(runtime =>
  Array.from(forms, ([name, used]): ReaderContender => {
    return {
      name: `${runtime} ${name}`,
      threads: [1, 2],
      open: ({ model }, threads) => openOnnxruntime(runtime, model, used, 'last', threads),
    };
  }),
);

/** Two forms are two graphs, each with the weights, and one cache. */
export async function openOnnxruntime(
  runtime: Runtime,
  model: Model,
  [ofPrompt, ofByte]: Forms,
  logits: GraphOptions['logits'],
  threads: number,
): Promise<Reader> {
  const { numLayers, numHeads, dModel } = model.config;
  const open = (experts: ExpertsForm) =>
    openSession(runtime, languageModel(model, { experts, logits }), { threads, spin: true });
  const prompts = await open(ofPrompt);
  const bytes = ofByte === ofPrompt ? prompts : await open(ofByte);
  const empty = tensorOf(runtime, new Float32Array(0), [2, 1, numHeads, 0, dModel / numHeads]);
  let [cache, numTokens]: [readonly Tensor[], number] = [[], 0];
  const clear = () => {
    cache = Array.from({ length: numLayers }, () => empty);
    numTokens = 0;
  };
  clear();
  return {
    clear,
    async read(ids) {
      const positions = Int32Array.from(ids, (_, i) => numTokens + i);
      const outputs = await (ids.length === 1 ? bytes : prompts).runTensors({
        ids: tensorOf(runtime, Int32Array.from(ids), [1, ids.length]),
        positions: tensorOf(runtime, positions, [1, ids.length]),
        ...Object.fromEntries(cache.map((past, l) => [`past${l}`, past])),
      });
      cache = cache.map((_, l) => outputs[`present${l}`]);
      numTokens += ids.length;
      return outputs.logits.data;
    },
    async close() {
      await prompts.close();
      if (bytes !== prompts) await bytes.close();
    },
  };
}
