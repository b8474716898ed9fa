/** A model file, as it arrives, into WebAssembly memory. */
import { show, unexpected } from '../check.js';
import type { ModelConfig } from '../model/config.js';
import { ModelParts } from '../model/model-parts.js';
import { withArriving } from '../model/open.js';
import type { ModelSource } from '../model/source.js';
import { storageOf } from '../wasm/formats.js';
import { Held, newMemory, type Threads } from '../wasm/held.js';
import { openEngine } from '../wasm/open-engine.js';
import type { WasmInfo } from '../wasm/options.js';
import { type Allocate, allocated } from '../wasm/packed-weights.js';
import { residentExperts } from './experts.js';
import { LazyExperts } from './lazy-experts.js';
import { checkRuntimeOptions } from './options.js';
import { packersOf, putEps } from './pack.js';
import { placeModel, placeSlots } from './packed-model.js';
import { LoadedModel } from './runtime.js';
import type { LazyExperts as LazyExpertsOptions, Runtime, RuntimeOptions } from './types.js';

/**
 * Load a model onto WebAssembly: each tensor is packed when it is there, and let go. With `lazyExperts`, experts come when
 * a token first chooses them, and the source stays open: a path, a Blob, or an address whose server answers ranges with
 * status 206 and a strong ETag or a Last-Modified.
 *
 * Checked  as `openModel` of `xmoe/model` checks a file, before any weight is waited for
 * Memory   the packed weights, one tensor as it is in the file and in float64, and a piece of the file
 * @throws as `openModel`, and where the engine cannot run what is required as `wasmBackend`; RangeError naming the tensor,
 *         where a weight is beyond float32 or the format, or saying how much memory could not be had, or that the budget is
 *         less than one expert's
 */
export async function openRuntime(source: ModelSource, options: RuntimeOptions = {}): Promise<Runtime> {
  checkRuntimeOptions(options);
  const { threads, info } = await openEngine(options, options.weights ?? 'f32');
  try {
    return await (options.lazyExperts ? openLazily : openWhole)(source, options, threads, info);
  } catch (error) {
    threads.pool?.dispose();
    throw error;
  }
}

type Open = (source: ModelSource, options: RuntimeOptions, threads: Threads, info: WasmInfo) => Promise<Runtime>;

const openWhole: Open = (source, options, threads, info) =>
  withArriving(source, options, async (config, file) => {
    const storage = storageOf(threads.module, threads.experts);
    const weightBytes = allocated(allocate => placeModel(config, storage, allocate));
    const memory = newMemory(threads, weightBytes, 'model');
    const packed = placeModel(config, storage, numBytes => memory.allocate(numBytes));
    putEps(packed, memory);
    const packers = packersOf(packed);
    for await (const [name, tensor] of file.tensors()) packers.get(name)!(tensor, memory);
    const held = new Held(threads, 'model', memory, packed);
    return new LoadedModel(held, threads, info, residentExperts(packed, { weightBytes, bytesRead: file.numBytes }));
  });

/** With slots for experts, which are read by and by: the source stays open. */
const openLazily: Open = async (source, { signal, onProgress, lazyExperts }, threads, info) => {
  const parts = await ModelParts.open(source, signal);
  try {
    const { config } = parts;
    const storage = storageOf(threads.module, threads.experts);
    const place = (allocate: Allocate, numSlots: number) => {
      const slots = placeSlots(config, storage, allocate, numSlots);
      return { slots, packed: placeModel(config, storage, allocate, slots) };
    };
    const ofExpert = allocated(allocate => placeSlots(config, storage, allocate, 1));
    const ofRest = allocated(allocate => place(allocate, 0));
    const numSlots = numSlotsFor(config, ofExpert, lazyExperts!);
    const memory = newMemory(threads, ofRest + numSlots * ofExpert, 'model');
    const { slots, packed } = place(numBytes => memory.allocate(numBytes), numSlots);
    putEps(packed, memory);
    const experts = new LazyExperts(packed, slots, parts, { ofExpert, ofRest });
    const packers = experts.packers(packersOf(packed));
    for await (const [name, tensor] of parts.tensors(packers.keys(), signal, onProgress)) {
      packers.get(name)!(tensor, memory);
    }
    return new LoadedModel(new Held(threads, 'model', memory, packed), threads, info, experts);
  } catch (error) {
    await parts.close();
    throw error;
  }
};

/** As many as the budget allows, and no more than there are experts. */
function numSlotsFor({ moeLayers, layer }: ModelConfig, ofExpert: number, { budget }: LazyExpertsOptions): number {
  const numExperts = moeLayers.length * layer.numExperts;
  if (budget === undefined || numExperts === 0) return numExperts;
  if (budget >= ofExpert) return Math.min(numExperts, Math.floor(budget / ofExpert));
  throw unexpected(RangeError, 'options.lazyExperts.budget', `at least ${ofExpert} bytes, one expert's`, show(budget));
}
