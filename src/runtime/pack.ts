/** Tensors of a model file into memory, one by one, in any order. */
import { finiteValues } from '../model/assemble.js';
import { tensorsOf, type WithBias } from '../model/tensors.js';
import type { Tensor } from '../safetensors/index.js';
import type { Matrix } from '../types.js';
import { checkStorable, type Storage } from '../wasm/formats.js';
import type { Memory } from '../wasm/memory.js';
import { checkFloat32, type PackedExpert, type PackedLinear } from '../wasm/packed-weights.js';
import { packBias, packMatrix, packRouter } from '../wasm/panels.js';
import type { PackedModel } from './packed-model.js';

/** Packs a tensor. @throws TypeError | RangeError that names it, for values that are not finite or beyond the format */
export type Packer = (tensor: Tensor, memory: Memory) => void;

/** How the tensor of each name is packed, once the memory is there. */
export function packersOf(packed: PackedModel): ReadonlyMap<string, Packer> {
  const { config, finalNormPtr, head } = packed;
  const packers = new Map<string, Packer>();
  const named = tensorsOf(config, name => name);

  /** The values of a tensor as they are. */
  function floats(name: string, ptr: number): void {
    packers.set(name, (tensor, memory) => {
      const { data } = matrixOf(name, tensor);
      memory.floats(ptr, data.length).set(data);
    });
  }

  function norm({ weight, bias }: WithBias<string>, ptr: number): void {
    floats(weight, ptr);
    floats(bias, ptr + 4 * config.dModel);
  }

  function linear({ weight, bias }: WithBias<string>, panelsPtr: number, numInputs: number): void {
    packers.set(weight, (tensor, memory) => {
      packStored(weight, matrixOf(weight, tensor), packed, memory, panelsPtr);
    });
    packers.set(bias, (tensor, memory) => {
      packBias(matrixOf(bias, tensor).data, numInputs, packed, memory, panelsPtr);
    });
  }

  /** The same of all experts: theirs is the first index. */
  function linears({ weight, bias }: WithBias<string>, of: readonly PackedLinear[], numInputs: number): void {
    packers.set(weight, (tensor, memory) => {
      of.forEach(({ panelsPtr }, e) => {
        packStored(`${weight}[${e}]`, matrixOf(weight, partOf(tensor, e), [e]), packed, memory, panelsPtr);
      });
    });
    packers.set(bias, (tensor, memory) => {
      of.forEach(({ panelsPtr }, e) => {
        packBias(matrixOf(bias, partOf(tensor, e), [e]).data, numInputs, packed, memory, panelsPtr);
      });
    });
  }

  packers.set(named.embedTokens, (tensor, memory) => {
    const matrix = matrixOf(named.embedTokens, tensor);
    memory.floats(packed.embedTokensPtr, matrix.data.length).set(matrix.data);
    packStored(named.embedTokens, matrix, packed, memory, head.panelsPtr);
  });
  floats(named.embedPositions, packed.embedPositionsPtr);
  norm(named.finalNorm, finalNormPtr);
  packed.layers.forEach(({ attentionNormPtr, qkv, o, ffnNormPtr, ffn }, l) => {
    const { attentionNorm, attention, ffnNorm, ffn: names } = named.layers[l];
    const { dModel, dFf } = ffn;
    norm(attentionNorm, attentionNormPtr);
    [attention.q, attention.k, attention.v].forEach((projection, i) => {
      linear(projection, qkv.panelsPtr + i * qkv.step, dModel);
    });
    linear(attention.o, o.panelsPtr, dModel);
    norm(ffnNorm, ffnNormPtr);
    if (ffn.kind === 'dense') {
      linear(names.up, ffn.weights.up.panelsPtr, dModel);
      if (names.gate) linear(names.gate, ffn.weights.gate!.panelsPtr, dModel);
      linear(names.down, ffn.weights.down.panelsPtr, dFf);
    } else if (names.kind === 'moe') {
      packers.set(names.router, (tensor, memory) => {
        packRouter(matrixOf(names.router, tensor), memory, ffn.routerPtr);
      });
      const every = (part: keyof PackedExpert) => ffn.experts.map(expert => expert[part]!);
      linears(names.up, every('up'), dModel);
      if (names.gate) linears(names.gate, every('gate'), dModel);
      linears(names.down, every('down'), dFf);
    }
  });
  return packers;
}

/** The weights of all norms end with eps, which is no tensor's. */
export function putEps({ config, layers, finalNormPtr }: PackedModel, memory: Memory): void {
  const norms = layers.flatMap(({ attentionNormPtr, ffnNormPtr }) => [attentionNormPtr, ffnNormPtr]);
  for (const ptr of [...norms, finalNormPtr]) memory.floats(ptr + 8 * config.dModel, 1)[0] = config.layerNormEps;
}

function packStored(name: string, matrix: Matrix, storage: Storage, memory: Memory, panelsPtr: number): void {
  packMatrix(storable(name, matrix, storage), storage, memory, panelsPtr);
}

/** The matrix. @throws RangeError for values beyond the format */
export function storable(name: string, matrix: Matrix, { format }: Storage): Matrix {
  checkStorable(format, name, matrix);
  return matrix;
}

/** The values of a tensor, or of a part of it: a vector is one row. */
export function matrixOf(name: string, tensor: Tensor, first: readonly number[] = []): Matrix {
  const [rows, cols] = tensor.shape.length === 2 ? tensor.shape : [1, tensor.shape[0]];
  const matrix = { rows, cols, data: finiteValues(name, tensor, first) };
  checkFloat32(name, matrix);
  return matrix;
}

/** Part e of a tensor, along its first axis. */
function partOf({ dtype, shape: [count, ...shape], bytes }: Tensor, e: number): Tensor {
  const length = bytes.length / count;
  return { dtype, shape, bytes: bytes.subarray(e * length, (e + 1) * length) };
}
