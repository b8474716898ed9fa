/** The tensors of a model file, by the names of models/README.md, put together. */
import { activations } from '../activations.js';
import { unexpected } from '../check.js';
import { type Tensor, toFloat64 } from '../safetensors/index.js';
import type { Matrix, Weights } from '../types.js';
import { checkLayer } from '../validate.js';
import { type ModelConfig, VOCAB_SIZE } from './config.js';
import type { DenseFfn, Layer, LayerNorm, Linear, Model } from './types.js';

/** Gives the values of a tensor; called once for each that a configuration asks for. */
type Take = (name: string, shape: readonly number[]) => Float64Array;

/**
 * The model of a configuration.
 *
 * @throws TypeError | RangeError for weights that an XMoE layer refuses
 */
export function assemble(config: ModelConfig, take: Take): Model {
  const model = modelOf(config, take);
  for (const { ffn } of model.layers) if (ffn.kind === 'moe') checkLayer(ffn.moe, config.layer);
  return model;
}

/**
 * Check that a file has the tensors of a configuration, in its shapes, and no others: nothing of their values is needed.
 *
 * @throws RangeError that names the tensor
 */
export function checkTensors(config: ModelConfig, tensors: ReadonlyMap<string, Pick<Tensor, 'shape'>>): void {
  const left = new Map(tensors);
  const noValues = new Float64Array(0);
  modelOf(config, (name, shape) => {
    const tensor = left.get(name);
    if (tensor === undefined || show(tensor.shape) !== show(shape)) {
      throw unexpected(RangeError, name, `a tensor of shape ${show(shape)}`, tensor ? show(tensor.shape) : 'none');
    }
    left.delete(name);
    return noValues;
  });
  for (const [name, { shape }] of left) throw unexpected(RangeError, name, 'no tensor of this name', show(shape));
}

/** @throws TypeError where they are no floats; RangeError for one that is not finite: it names the tensor and the place */
export function finiteValues(name: string, tensor: Tensor): Float64Array {
  const values = toFloat64(tensor, name);
  const bad = values.findIndex(value => !Number.isFinite(value));
  if (bad >= 0) throw unexpected(RangeError, name, 'finite numbers', `${values[bad]} at ${place(bad, tensor.shape)}`);
  return values;
}

function modelOf(config: ModelConfig, take: Take): Model {
  const { contextLength, dModel, numLayers } = config;
  const layers: Layer[] = [];
  for (let l = 0; l < numLayers; l++) layers.push(layerOf(take, l, config)); // the first that is missing ends it
  return {
    config,
    embedTokens: matrixOf(take, 'model.embed_tokens.weight', VOCAB_SIZE, dModel),
    embedPositions: matrixOf(take, 'model.embed_positions.weight', contextLength, dModel),
    layers,
    finalNorm: normOf(take, 'model.norm', dModel),
  };
}

function layerOf(take: Take, index: number, config: ModelConfig): Layer {
  const { dModel, moeLayers } = config;
  const prefix = `model.layers.${index}`;
  const projection = (name: string) => linearOf(take, `${prefix}.self_attn.${name}_proj`, dModel, dModel);
  return {
    attentionNorm: normOf(take, `${prefix}.input_layernorm`, dModel),
    attention: { q: projection('q'), k: projection('k'), v: projection('v'), o: projection('o') },
    ffnNorm: normOf(take, `${prefix}.post_attention_layernorm`, dModel),
    ffn: moeLayers.includes(index)
      ? { kind: 'moe', moe: expertsOf(take, `${prefix}.mlp`, config) }
      : { kind: 'dense', dense: denseOf(take, `${prefix}.mlp`, config) },
  };
}

function denseOf(take: Take, prefix: string, { dModel, dFfDense, layer }: ModelConfig): DenseFfn {
  const { gated } = activations[layer.activation];
  return {
    up: linearOf(take, `${prefix}.up_proj`, dFfDense, dModel),
    ...(gated && { gate: linearOf(take, `${prefix}.gate_proj`, dFfDense, dModel) }),
    down: linearOf(take, `${prefix}.down_proj`, dModel, dFfDense),
  };
}

function expertsOf(take: Take, prefix: string, { dModel, dFf, layer }: ModelConfig): Weights {
  const { numExperts, skipExpert, activation } = layer;
  return {
    router: matrixOf(take, `${prefix}.router.weight`, numExperts + (skipExpert ? 1 : 0), dModel),
    up: matricesOf(take, `${prefix}.experts.up_proj`, numExperts, dFf, dModel),
    upBias: matrixOf(take, `${prefix}.experts.up_proj_bias`, numExperts, dFf),
    ...(activations[activation].gated && {
      gate: matricesOf(take, `${prefix}.experts.gate_proj`, numExperts, dFf, dModel),
      gateBias: matrixOf(take, `${prefix}.experts.gate_proj_bias`, numExperts, dFf),
    }),
    down: matricesOf(take, `${prefix}.experts.down_proj`, numExperts, dModel, dFf),
    downBias: matrixOf(take, `${prefix}.experts.down_proj_bias`, numExperts, dModel),
  };
}

function linearOf(take: Take, prefix: string, rows: number, cols: number): Linear {
  return { weight: matrixOf(take, `${prefix}.weight`, rows, cols), bias: take(`${prefix}.bias`, [rows]) };
}

function normOf(take: Take, prefix: string, d: number): LayerNorm {
  return { weight: take(`${prefix}.weight`, [d]), bias: take(`${prefix}.bias`, [d]) };
}

function matrixOf(take: Take, name: string, rows: number, cols: number): Matrix {
  return { rows, cols, data: take(name, [rows, cols]) };
}

/** A tensor [count, rows, cols] as its matrices, which are views of it; as many as there are values for. */
function matricesOf(take: Take, name: string, count: number, rows: number, cols: number): Matrix[] {
  const data = take(name, [count, rows, cols]);
  const size = rows * cols;
  return Array.from({ length: data.length / size }, (_, e) => ({
    rows,
    cols,
    data: data.subarray(e * size, (e + 1) * size),
  }));
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
