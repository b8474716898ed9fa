/** The model itself: bytes in, logits of the next byte out. */

import { checkBytes, finite, unexpected } from '../check.js';
import { linear } from '../linear.js';
import { addScaled, gatherRows, rows, zeros } from '../matrix.js';
import { type LayerRun, reference, runFused } from '../moe.js';
import type { Backend, Config, Matrix } from '../types.js';
import { applyLinear, attend, denseFfn, layerNorm } from './layers.js';
import type { Attention, Model } from './types.js';

export interface RunOptions {
  /** Route by this threshold, or with every expert, instead of as the file says. */
  readonly threshold?: number | 'dense';
  /** Runs the XMoE layers; everything else is float64 of this folder. Default: the reference. */
  readonly backend?: Backend;
}

export interface Run {
  /** Row i: of the byte after ids[i]. [n, 256] */
  readonly logits: Matrix;
  /** One for each of `config.moeLayers`. */
  readonly traces: readonly LayerRun[];
}

/** The keys and values of the bytes run so far; `run` adds to it. */
export interface Cache {
  numTokens: number;
  /** One for each layer: [contextLength, d], the first `numTokens` rows in use. */
  readonly keys: readonly Matrix[];
  readonly values: readonly Matrix[];
}

export function emptyCache({ config }: Model): Cache {
  const perLayer = () => Array.from({ length: config.numLayers }, () => zeros(config.contextLength, config.dModel));
  return { numTokens: 0, keys: perLayer(), values: perLayer() };
}

/**
 * Run bytes after those that the cache holds; the cache then holds these too.
 *
 * Maths   x = embedTokens[id] + embedPositions[position]; each layer: x += attention(norm(x)), then x += ffn(norm(x));
 *         logits = norm(x) embedTokensᵀ, the head being tied to the embedding
 * Shapes  ids [n], n >= 0 -> logits [n, 256]
 * Same    n bytes at once, or one after another, give the same bits; but where a capacity factor lets experts drop
 *         tokens, capacity is that of each call
 * @throws RangeError where the context has no room for so many bytes, or where weights overflow; TypeError for options
 */
export function run(model: Model, ids: Uint8Array, cache: Cache = emptyCache(model), options: RunOptions = {}): Run {
  const { contextLength, numHeads, layerNormEps, layer: layerConfig } = model.config;
  checkBytes('ids', ids);
  const room = contextLength - cache.numTokens;
  if (ids.length > room)
    throw unexpected(RangeError, 'ids', `at most ${room} bytes (left of the context)`, String(ids.length));
  const config = routedBy(layerConfig, options.threshold);
  const backend = options.backend ?? reference;

  const x = embed(model, ids, cache.numTokens);
  const traces: LayerRun[] = [];
  model.layers.forEach(({ attentionNorm, attention, ffnNorm, ffn }, l) => {
    addTo(x, selfAttention(layerNorm(x, attentionNorm, layerNormEps), attention, numHeads, cache, l));
    const normed = layerNorm(x, ffnNorm, layerNormEps);
    if (ffn.kind === 'dense') addTo(x, denseFfn(normed, ffn.dense, config.activation));
    else {
      const trace = runFused(backend, normed, ffn.moe, config);
      traces.push(trace);
      addTo(x, trace.y);
    }
  });
  const logits = linear(layerNorm(x, model.finalNorm, layerNormEps), model.embedTokens);
  if (!logits.data.every(Number.isFinite)) {
    throw unexpected(RangeError, 'model', 'weights whose logits are finite', 'weights that overflow float64');
  }
  cache.numTokens += ids.length;
  return { logits, traces };
}

/** The XMoE layers' configuration with the router that `RunOptions.threshold` asks for. */
export function routedBy(layer: Config, threshold: number | 'dense' | undefined): Config {
  if (threshold === undefined) return layer;
  if (threshold === 'dense') return { ...layer, router: 'dense' };
  return { ...layer, router: 'threshold', threshold: finite('options.threshold', threshold) };
}

/** Shapes ids [n] -> x [n, d]; the first of them is at position `start`. */
function embed({ embedTokens, embedPositions }: Model, ids: Uint8Array, start: number): Matrix {
  const x = gatherRows(embedTokens, Int32Array.from(ids));
  addTo(x, rows(embedPositions, start, start + ids.length));
  return x;
}

/** Attention of new tokens x [n, d] to themselves and to the cache of layer l, which takes their keys and values. */
function selfAttention(x: Matrix, { q, k, v, o }: Attention, numHeads: number, cache: Cache, l: number): Matrix {
  const [start, end] = [cache.numTokens, cache.numTokens + x.rows];
  rows(cache.keys[l], start, end).data.set(applyLinear(k, x).data);
  rows(cache.values[l], start, end).data.set(applyLinear(v, x).data);
  return applyLinear(
    o,
    attend(applyLinear(q, x), rows(cache.keys[l], 0, end), rows(cache.values[l], 0, end), numHeads),
  );
}

/** x += a. */
function addTo(x: Matrix, a: Matrix): void {
  addScaled(x.data, 1, a.data);
}
