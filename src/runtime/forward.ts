/** A read: bytes in, keys and values into a cache, logits out. */
import { unexpected } from '../check.js';
import { VOCAB_SIZE } from '../model/config.js';
import type { Matrix } from '../types.js';
import type { Step } from '../wasm/drive.js';
import type { Computation, Open } from '../wasm/held.js';
import { routerRows } from '../wasm/router-rows.js';
import { cut, inSequence } from '../wasm/tasks.js';
import { newRows, part } from '../wasm/workspace.js';
import { attentionLoops } from './attention.js';
import { type Batch, newBatch, normLoop, over } from './batch.js';
import { denseLoop, moeSteps, type RoutedCall } from './ffn.js';
import type { PackedModel } from './packed-model.js';
import { productLoop } from './products.js';
import type { RoutedToken } from './types.js';

export interface ReadCall extends RoutedCall {
  readonly ids: Uint8Array;
  /** The position of the first of them: so many are in the cache. */
  readonly start: number;
  readonly cachePtr: number;
  /** The first of the ids whose logits are wanted; the rest follows it. */
  readonly firstWithLogits: number;
}

export interface ReadResult {
  /** Of each byte from `firstWithLogits` on: [n, 256], float32. */
  readonly logits: Matrix;
  /** By XMoE layer, then by byte. */
  readonly routed: readonly (readonly RoutedToken[])[];
}

/** Bytes of a batch at most: what one needs in memory stays small. */
const BATCH_ROWS = 264;
/** Multiply-adds of a layer for a batch at most: between layers the calling thread is free. */
const LAYER_MULTIPLY_ADDS = 2 ** 28;

/**
 * Bits    independent of threads and of batches; but where a capacity factor drops tokens, all of a read is one batch
 * @throws RangeError where weights overflow float32
 */
export function readSteps(call: ReadCall): Computation<PackedModel, ReadResult, Step> {
  return function* (model, numThreads) {
    const { ids, start, config, firstWithLogits } = call;
    const most = config.capacityFactor === null ? batchRows(model.packed) : ids.length;
    const numWanted = ids.length - firstWithLogits;
    const logits = new Float32Array(numWanted * VOCAB_SIZE);
    const routed: RoutedToken[][] = model.packed.config.moeLayers.map(() => []);
    for (const [first, count] of cut(ids.length, most)) {
      model.memory.begin();
      const batch = newBatch(model, count, numThreads);
      embed(model, ids.subarray(first, first + count), start + first, batch);
      const numUnwanted = Math.min(count, Math.max(0, firstWithLogits - first));
      const into = logits.subarray(Math.max(0, first - firstWithLogits) * VOCAB_SIZE);
      const ofBatch = yield* forwardBatch(model, numThreads, call, batch, start + first, numUnwanted, into);
      ofBatch.forEach((tokens, m) => {
        for (const token of tokens) routed[m].push(token);
      });
    }
    if (!areFinite(logits)) {
      throw unexpected(RangeError, 'model', 'weights whose logits are finite', 'weights that overflow float32');
    }
    return { logits: { rows: numWanted, cols: VOCAB_SIZE, data: logits }, routed };
  };
}

function areFinite(values: Float32Array): boolean {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return false;
  return true;
}

/** x = embedTokens[id] + embedPositions[position] */
function embed({ memory, packed }: Open<PackedModel>, ids: Uint8Array, start: number, { x }: Batch): void {
  const { embedTokensPtr, embedPositionsPtr, config } = packed;
  const { dModel, contextLength } = config;
  const tokens = memory.floats(embedTokensPtr, VOCAB_SIZE * dModel);
  const positions = memory.floats(embedPositionsPtr, contextLength * dModel);
  const into = memory.floats(x.ptr, ids.length * dModel);
  for (let i = 0; i < ids.length; i++) {
    const [token, position] = [ids[i] * dModel, (start + i) * dModel];
    for (let c = 0; c < dModel; c++) into[i * dModel + c] = tokens[token + c] + positions[position + c];
  }
}

/** @param logits where those of the batch's rows after the first `numUnwanted` are put */
function* forwardBatch(
  model: Open<PackedModel>,
  numThreads: number,
  call: ReadCall,
  batch: Batch,
  start: number,
  numUnwanted: number,
  logits: Float32Array,
): Generator<Step, RoutedToken[][], void> {
  const { memory, packed } = model;
  const { numRows } = batch;
  const routed: RoutedToken[][] = [];
  const layerStart = memory.end;
  for (const [l, layer] of packed.layers.entries()) {
    memory.release(layerStart);
    const { ffn } = layer;
    const loops = attentionLoops(model, layer, l, batch, start, call.cachePtr, numThreads);
    batch.pending = batch.projected;
    loops.push(normLoop(model, batch, layer.ffnNormPtr));
    if (ffn.kind === 'dense') {
      loops.push(denseLoop(model, ffn, batch, batch.dense!, numThreads));
      yield* inSequence(loops, numThreads);
      batch.pending = batch.dense!.out;
    } else {
      const router = routerRows(over(model, ffn), batch.normed, numRows);
      loops.push(router.loop);
      yield* inSequence(loops, numThreads);
      routed.push(yield* moeSteps(model, ffn, batch, router, call));
      batch.pending = batch.y;
    }
  }
  memory.release(layerStart);
  const numWanted = numRows - numUnwanted;
  if (numWanted === 0) return routed;
  const out = newRows(model, numWanted, VOCAB_SIZE); // whole panels
  const from = part(batch.normedCodes, numUnwanted);
  const head = productLoop(model, packed.head, packed.config.dModel, numWanted, from, out, numThreads);
  yield* inSequence([normLoop(model, batch, packed.finalNormPtr, numUnwanted), head], numThreads);
  logits.set(memory.floats(out.ptr, numWanted * VOCAB_SIZE));
  return routed;
}

/** Whole tiles, and as many as the largest layer allows. */
function batchRows({ layers, config }: PackedModel): number {
  const { dModel } = config;
  const ofFfn = layers.map(({ ffn }) => {
    const numExperts = ffn.kind === 'moe' ? ffn.experts.length : 1;
    return (ffn.isGated ? 3 : 2) * dModel * ffn.dFf * numExperts;
  });
  const most = LAYER_MULTIPLY_ADDS / (4 * dModel * dModel + Math.max(...ofFfn));
  return Math.min(BATCH_ROWS, Math.max(12, 12 * Math.floor(most / 12)));
}
