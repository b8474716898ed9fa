/** Causal attention of a batch, from the residual stream to what is added to it. */
import { attendScratchBytes, headCacheBytes, keysBytes } from '../wasm/attention.js';
import type { Open } from '../wasm/held.js';
import { encode, TASK_ROWS } from '../wasm/products.js';
import { cut, type Loop, split, type Task } from '../wasm/tasks.js';
import { each, from } from '../wasm/workspace.js';
import { type Batch, normLoop } from './batch.js';
import type { PackedLayer, PackedModel } from './packed-model.js';
import { productLoop } from './products.js';

/** Bytes of the keys and values of a stream, in all layers. */
export function cacheBytes({ config }: PackedModel): number {
  return config.numLayers * layerCacheBytes(config);
}

function layerCacheBytes({ contextLength, dModel, numHeads }: PackedModel['config']): number {
  return headCacheBytes(contextLength, dModel / numHeads, numHeads);
}

/** Layer `l` for the batch's bytes, which are at the positions from `start` on: `projected` is what is to be added to x. */
export function attentionLoops(
  model: Open<PackedModel>,
  layer: PackedLayer,
  l: number,
  batch: Batch,
  start: number,
  cachePtr: number,
  numThreads: number,
): Loop[] {
  const { memory, packed } = model;
  const { config } = packed;
  const { contextLength, dModel, numHeads } = config;
  const { numRows, normedCodes, qkv, attended, attendedCodes, projected } = batch;
  const headWidth = dModel / numHeads;
  const third = 4 * (qkv.stride / 3);
  const [kPtr, vPtr] = [qkv.ptr + third, qkv.ptr + 2 * third];
  const keysPtr = cachePtr + l * layerCacheBytes(config);
  const valuesPtr = keysPtr + keysBytes(contextLength, headWidth, numHeads);

  const heads = numThreads === 1 ? [[0, numHeads] as const] : cut(numHeads, 1);
  const scratch = each(memory, attendScratchBytes(contextLength), heads.length);
  const attend = heads.map(([head, count], i): Task => {
    const range = [headWidth, head, head + count] as const;
    const cache = [keysPtr, valuesPtr, contextLength] as const;
    const out = [attended.ptr, attended.stride] as const;
    return [
      ['store_heads_f32', kPtr, vPtr, qkv.stride, ...cache, start, numRows, ...range],
      ['attend_f32', qkv.ptr, qkv.stride, ...cache, ...out, start, numRows, ...range, scratch(i)],
    ];
  });
  const encoding = cut(numRows, TASK_ROWS).map(([first, count]): Task => {
    return encode(packed, from(attended, first), count, dModel, from(attendedCodes, first));
  });
  return [
    normLoop(model, batch, layer.attentionNormPtr),
    productLoop(model, layer.qkv, dModel, numRows, normedCodes, qkv, numThreads),
    split(attend, 2 * numRows * (start + numRows) * dModel),
    split(encoding, numRows * dModel),
    productLoop(model, layer.o, dModel, numRows, attendedCodes, projected, numThreads),
  ];
}
