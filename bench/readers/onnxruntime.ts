/** ONNX Runtime, native or compiled to WebAssembly, as a reader: its cache goes from one call to the next as it is. */
import type { Model } from 'xmoe/model';
import { openSession, type Runtime, type Tensor, tensorOf } from '../contenders/onnxruntime.js';
import { type GraphOptions, languageModel } from '../onnx-gpt.js';
import type { Reader } from './reader.js';

export async function openOnnxruntime(
  runtime: Runtime,
  model: Model,
  options: GraphOptions,
  threads: number,
): Promise<Reader> {
  const { numLayers, numHeads, dModel } = model.config;
  const session = await openSession(runtime, languageModel(model, options), { threads, spin: true });
  const empty = tensorOf(runtime, new Float32Array(0), [2, 1, numHeads, 0, dModel / numHeads]);
  let cache: readonly Tensor[];
  let numTokens: number;
  const clear = () => {
    cache = Array.from({ length: numLayers }, () => empty);
    numTokens = 0;
  };
  clear();
  return {
    clear,
    async read(ids) {
      const positions = Int32Array.from(ids, (_, i) => numTokens + i);
      const outputs = await session.runTensors({
        ids: tensorOf(runtime, Int32Array.from(ids), [1, ids.length]),
        positions: tensorOf(runtime, positions, [1, ids.length]),
        ...Object.fromEntries(cache.map((past, l) => [`past${l}`, past])),
      });
      cache = cache.map((_, l) => outputs[`present${l}`]);
      numTokens += ids.length;
      return outputs.logits.data;
    },
    close: session.close,
  };
}
