/** A model file, as it arrives, into WebAssembly memory. */
import { withArriving } from '../model/open.js';
import type { ModelSource } from '../model/source.js';
import { storageOf } from '../wasm/formats.js';
import { Held, newMemory } from '../wasm/held.js';
import { openEngine } from '../wasm/open-engine.js';
import { allocated } from '../wasm/packed-weights.js';
import { checkRuntimeOptions } from './options.js';
import { packersOf, putEps } from './pack.js';
import { placeModel } from './packed-model.js';
import { LoadedModel } from './runtime.js';
import type { Runtime, RuntimeOptions } from './types.js';

/**
 * Load a model onto WebAssembly: each tensor is packed when it is there, and let go.
 *
 * Checked  as `openModel` of `xmoe/model` checks a file, before any weight is waited for
 * Memory   the packed weights, one tensor as it is in the file and in float64, and a piece of the file
 * @throws as `openModel`, and where the engine cannot run what is required as `wasmBackend`; RangeError naming the tensor,
 *         where a weight is beyond float32 or the format, or saying how much memory could not be had
 */
export async function openRuntime(source: ModelSource, options: RuntimeOptions = {}): Promise<Runtime> {
  checkRuntimeOptions(options);
  const { threads, info } = await openEngine(options, options.weights ?? 'f32');
  try {
    return await withArriving(source, options, async (config, file) => {
      const storage = storageOf(threads.module, threads.experts);
      const weightBytes = allocated(allocate => placeModel(config, storage, allocate));
      const memory = newMemory(threads, weightBytes, 'model');
      const packed = placeModel(config, storage, numBytes => memory.allocate(numBytes));
      putEps(packed, memory);
      const packers = packersOf(packed);
      for await (const [name, tensor] of file.tensors()) packers.get(name)!(tensor, memory);
      const held = new Held(threads, 'model', memory, packed);
      return new LoadedModel(held, threads, info, { weightBytes, bytesRead: file.numBytes });
    });
  } catch (error) {
    threads.pool?.dispose();
    throw error;
  }
}
