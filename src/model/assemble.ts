/** The tensors of a model file put together, and what is checked of them. */
import { unexpected } from '../check.js';
import { type Tensor, toFloat64 } from '../safetensors/index.js';
import type { Matrix, Weights } from '../types.js';
import { checkLayer } from '../validate.js';
import type { ModelConfig } from './config.js';
import { type DenseTensors, type MoeTensors, tensorsOf, type WithBias } from './tensors.js';
import type { DenseFfn, LayerNorm, Linear, Model } from './types.js';

/** The values of a tensor, and its shape. */
interface Values {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/**
 * The model of a configuration.
 *
 * @param take gives the values of a tensor; called once for each that the configuration asks for
 * @throws TypeError | RangeError for weights that an XMoE layer refuses
 */
export function assemble(config: ModelConfig, take: (name: string) => Float64Array): Model {
  const tensors = tensorsOf(config, (name, shape): Values => ({ shape, data: take(name) }));
  const layers = tensors.layers.map(({ attentionNorm, attention: { q, k, v, o }, ffnNorm, ffn }) => ({
    attentionNorm: normOf(attentionNorm),
    attention: { q: linearOf(q), k: linearOf(k), v: linearOf(v), o: linearOf(o) },
    ffnNorm: normOf(ffnNorm),
    ffn: ffn.kind === 'moe' ? { kind: ffn.kind, moe: expertsOf(ffn) } : { kind: ffn.kind, dense: denseOf(ffn) },
  }));
  for (const { ffn } of layers) if (ffn.kind === 'moe') checkLayer(ffn.moe, config.layer);
  return {
    config,
    embedTokens: matrixOf(tensors.embedTokens),
    embedPositions: matrixOf(tensors.embedPositions),
    layers,
    finalNorm: normOf(tensors.finalNorm),
  };
}

/**
 * Check that a file has the tensors of a configuration, in its shapes, and no others: nothing of their values is needed.
 *
 * @throws RangeError that names the tensor
 */
export function checkTensors(config: ModelConfig, tensors: ReadonlyMap<string, Pick<Tensor, 'shape'>>): void {
  const left = new Map(tensors);
  tensorsOf(config, (name, shape) => {
    const tensor = left.get(name);
    if (tensor === undefined || show(tensor.shape) !== show(shape)) {
      throw unexpected(RangeError, name, `a tensor of shape ${show(shape)}`, tensor ? show(tensor.shape) : 'none');
    }
    left.delete(name);
  });
  for (const [name, { shape }] of left) throw unexpected(RangeError, name, 'no tensor of this name', show(shape));
}

/**
 * @param first the indices that all of it has in common, where it is a part of the tensor
 * @throws TypeError where they are no floats; RangeError for one that is not finite: it names the tensor and the place
 */
export function finiteValues(name: string, tensor: Tensor, first: readonly number[] = []): Float64Array {
  const values = toFloat64(tensor, name);
  const bad = values.findIndex(value => !Number.isFinite(value));
  if (bad < 0) return values;
  const at = show([...first, ...place(bad, tensor.shape)]);
  throw unexpected(RangeError, name, 'finite numbers', `${values[bad]} at ${at}`);
}

function denseOf({ up, gate, down }: DenseTensors<Values>): DenseFfn {
  return { up: linearOf(up), ...(gate && { gate: linearOf(gate) }), down: linearOf(down) };
}

function expertsOf({ router, up, gate, down }: MoeTensors<Values>): Weights {
  return {
    router: matrixOf(router),
    up: matricesOf(up.weight),
    upBias: matrixOf(up.bias),
    ...(gate && { gate: matricesOf(gate.weight), gateBias: matrixOf(gate.bias) }),
    down: matricesOf(down.weight),
    downBias: matrixOf(down.bias),
  };
}

function linearOf({ weight, bias }: WithBias<Values>): Linear {
  return { weight: matrixOf(weight), bias: bias.data };
}

function normOf({ weight, bias }: WithBias<Values>): LayerNorm {
  return { weight: weight.data, bias: bias.data };
}

function matrixOf({ shape: [rows, cols], data }: Values): Matrix {
  return { rows, cols, data };
}

/** A tensor [count, rows, cols] as its matrices, which are views of it. */
function matricesOf({ shape: [count, rows, cols], data }: Values): Matrix[] {
  const size = rows * cols;
  return Array.from({ length: count }, (_, e) => ({ rows, cols, data: data.subarray(e * size, (e + 1) * size) }));
}

/** The indices of element `flat` of a tensor. */
function place(flat: number, shape: readonly number[]): number[] {
  const indices: number[] = [];
  let left = flat;
  for (const size of shape.toReversed()) {
    indices.unshift(left % size);
    left = Math.floor(left / size);
  }
  return indices;
}

function show(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}
