/** Bytes of a model file -> the model, its weights float64. */
import { activations } from '../activations.js';
import { unexpected } from '../check.js';
import { readSafetensors, type Tensor, toFloat64 } from '../safetensors/index.js';
import type { Matrix, Weights } from '../types.js';
import { checkLayer } from '../validate.js';
import { type ModelConfig, parseConfig, VOCAB_SIZE } from './config.js';
import type { DenseFfn, Layer, LayerNorm, Linear, Model } from './types.js';

/**
 * Load a model from the bytes of a safetensors file. The file is not trusted: whatever it says, the answer is a model or an error.
 *
 * Names   those of models/README.md; every one must be there, in the shape that the configuration states, and no other
 * @throws TypeError, RangeError naming the tensor (and the index of a weight that is not finite) or the field
 */
export function loadModel(bytes: Uint8Array): Model {
  const { tensors, metadata } = readSafetensors(bytes);
  const config = parseConfig(metadata.get('config'));
  const { contextLength, dModel, numLayers } = config;
  const source = new Source(tensors);
  const layers: Layer[] = [];
  for (let l = 0; l < numLayers; l++) layers.push(layerOf(source, l, config));
  const model = {
    config,
    embedTokens: source.matrix('model.embed_tokens.weight', VOCAB_SIZE, dModel),
    embedPositions: source.matrix('model.embed_positions.weight', contextLength, dModel),
    layers,
    finalNorm: normOf(source, 'model.norm', dModel),
  };
  source.expectEmpty();
  return model;
}

function layerOf(source: Source, index: number, config: ModelConfig): Layer {
  const { dModel, moeLayers } = config;
  const prefix = `model.layers.${index}`;
  const projection = (name: string) => linearOf(source, `${prefix}.self_attn.${name}_proj`, dModel, dModel);
  return {
    attentionNorm: normOf(source, `${prefix}.input_layernorm`, dModel),
    attention: { q: projection('q'), k: projection('k'), v: projection('v'), o: projection('o') },
    ffnNorm: normOf(source, `${prefix}.post_attention_layernorm`, dModel),
    ffn: moeLayers.includes(index)
      ? { kind: 'moe', moe: expertsOf(source, `${prefix}.mlp`, config) }
      : { kind: 'dense', dense: denseOf(source, `${prefix}.mlp`, config) },
  };
}

function denseOf(source: Source, prefix: string, { dModel, dFfDense, layer }: ModelConfig): DenseFfn {
  const { gated } = activations[layer.activation];
  return {
    up: linearOf(source, `${prefix}.up_proj`, dFfDense, dModel),
    ...(gated && { gate: linearOf(source, `${prefix}.gate_proj`, dFfDense, dModel) }),
    down: linearOf(source, `${prefix}.down_proj`, dModel, dFfDense),
  };
}

function expertsOf(source: Source, prefix: string, { dModel, dFf, layer }: ModelConfig): Weights {
  const { numExperts, skipExpert, activation } = layer;
  const weights = {
    router: source.matrix(`${prefix}.router.weight`, numExperts + (skipExpert ? 1 : 0), dModel),
    up: source.matrices(`${prefix}.experts.up_proj`, numExperts, dFf, dModel),
    upBias: source.matrix(`${prefix}.experts.up_proj_bias`, numExperts, dFf),
    ...(activations[activation].gated && {
      gate: source.matrices(`${prefix}.experts.gate_proj`, numExperts, dFf, dModel),
      gateBias: source.matrix(`${prefix}.experts.gate_proj_bias`, numExperts, dFf),
    }),
    down: source.matrices(`${prefix}.experts.down_proj`, numExperts, dModel, dFf),
    downBias: source.matrix(`${prefix}.experts.down_proj_bias`, numExperts, dModel),
  };
  checkLayer(weights, layer);
  return weights;
}

function linearOf(source: Source, prefix: string, rows: number, cols: number): Linear {
  return { weight: source.matrix(`${prefix}.weight`, rows, cols), bias: source.vector(`${prefix}.bias`, rows) };
}

function normOf(source: Source, prefix: string, d: number): LayerNorm {
  return { weight: source.vector(`${prefix}.weight`, d), bias: source.vector(`${prefix}.bias`, d) };
}

/** The tensors of a file, each to be taken once. */
class Source {
  readonly #left: Map<string, Tensor>;

  constructor(tensors: ReadonlyMap<string, Tensor>) {
    this.#left = new Map(tensors);
  }

  vector(name: string, length: number): Float64Array {
    return this.#take(name, [length]);
  }

  matrix(name: string, rows: number, cols: number): Matrix {
    return { rows, cols, data: this.#take(name, [rows, cols]) };
  }

  /** A tensor [count, rows, cols] as its matrices, which are views of it. */
  matrices(name: string, count: number, rows: number, cols: number): Matrix[] {
    const data = this.#take(name, [count, rows, cols]);
    const size = rows * cols;
    return Array.from({ length: count }, (_, e) => ({ rows, cols, data: data.subarray(e * size, (e + 1) * size) }));
  }

  expectEmpty(): void {
    for (const [name, { shape }] of this.#left)
      throw unexpected(RangeError, name, 'no tensor of this name', show(shape));
  }

  #take(name: string, shape: readonly number[]): Float64Array {
    const tensor = this.#left.get(name);
    if (tensor === undefined || show(tensor.shape) !== show(shape)) {
      throw unexpected(RangeError, name, `a tensor of shape ${show(shape)}`, tensor ? show(tensor.shape) : 'none');
    }
    this.#left.delete(name);
    const values = toFloat64(tensor, name);
    const bad = values.findIndex(value => !Number.isFinite(value));
    if (bad >= 0) throw unexpected(RangeError, name, 'finite numbers', `${values[bad]} at ${place(bad, shape)}`);
    return values;
  }
}

/** The indices of element `flat` of a tensor. */
function place(flat: number, shape: readonly number[]): string {
  const indices: number[] = [];
  let left = flat;
  for (const size of shape.toReversed()) {
    indices.unshift(left % size);
    left = Math.floor(left / size);
  }
  return show(indices);
}

function show(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}
