/** `run` of xmoe/model, its XMoE layers in WebAssembly: everything around them is float64 in JS. */
import { emptyCache, run } from 'xmoe/model';
import { wasmBackend } from 'xmoe/wasm';
import type { ReaderContender } from './reader.js';

export const wasmLayers: ReaderContender = {
  name: 'xmoe/model, layers in xmoe/wasm',
  threads: [1, 2],
  async open({ model }, threads) {
    const backend = await wasmBackend({ threads, features: { relaxedSimd: 'enable' } });
    let cache = emptyCache(model);
    return {
      clear() {
        cache = emptyCache(model);
      },
      read(ids) {
        const { logits } = run(model, ids, cache, { backend });
        return logits.data.subarray(logits.data.length - logits.cols);
      },
      close: () => backend.dispose(),
    };
  },
};
