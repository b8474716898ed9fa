/** One layer call as a file: config, inputs, weights and, where somebody recorded them, its outputs. */
import {
  type FloatDtype,
  fromFloat64,
  fromIntegers,
  readSafetensors,
  type SafetensorsFile,
  type Tensor,
  toFloat64,
  toInt32,
  writeSafetensors,
} from '../safetensors/index.js';
import type { Config, Matrix, RoutingInputs, Weights } from '../types.js';
import { checkCall } from '../validate.js';
import { formatConfig, parseConfig, type StatedSizes } from './config.js';
import { type NamedTensor, type NamedTensors, type ReadTensor, readWeights, weightTensors } from './tensors.js';

export { exactDtype } from './exact-dtype.js';
export { type NamedTensor, type NamedTensors, outputTensors } from './tensors.js';

const FORMAT = 'xmoe-layer-case/1';

export interface LayerCase {
  readonly name: string;
  readonly config: Config;
  readonly x: Matrix;
  readonly weights: Weights;
  readonly inputs: RoutingInputs;
  /** The cotangent: loss = Σ(y ⊙ gradY) + α·l_aux. [T, d] */
  readonly gradY?: Matrix;
  /** What was recorded under `out.*`, without the prefix; empty where nothing was. */
  readonly recorded: NamedTensors;
  /** The recorder broke a tie in the drop order that nobody promised: `kept` is one admissible answer of several. */
  readonly dropOrderOpen: boolean;
}

/**
 * Read a layer case and check it whole: format, config, shapes, finite values.
 *
 * Source  the table "Layer-case files" in spec/SEMANTICS.md
 * @throws TypeError | RangeError | SafetensorsError naming the tensor or config key, what was expected and what came
 */
export function readLayerCase(file: Uint8Array): LayerCase {
  const { tensors, metadata } = readSafetensors(file);
  if (metadata.get('format') !== FORMAT) {
    throw new TypeError(`"format" expected metadata "${FORMAT}", got ${JSON.stringify(metadata.get('format'))}`);
  }
  const { config, sizes, dropOrderOpen } = parseConfig(metadata.get('config'));
  const read: ReadTensor = (name, numDimensions) => {
    const tensor = tensors.get(name);
    if (!tensor) return undefined;
    checkDimensions(name, tensor, numDimensions);
    return { shape: tensor.shape, data: toFloat64(tensor, name) };
  };
  const matrix = (name: string): Matrix | undefined => {
    const tensor = read(name, 2);
    return tensor && { rows: tensor.shape[0], cols: tensor.shape[1], data: tensor.data };
  };
  const x = matrix('x');
  if (!x) throw new TypeError('"x" expected a tensor, got none in the file');
  const weights = readWeights(read, config.router !== 'hash');
  const inputs = readInputs(tensors, matrix('noise'));
  const gradY = matrix('grad.y');
  checkCall(x, weights, config, inputs, gradY);
  checkSizes(sizes, x, weights);
  return {
    name: metadata.get('name') ?? '',
    config,
    x,
    weights,
    inputs,
    ...(gradY && { gradY }),
    recorded: readRecorded(tensors),
    dropOrderOpen,
  };
}

/** The file that `readLayerCase` reads back; floats in `dtype`, which must hold them exactly for the case to be the same. */
export function writeLayerCase(layerCase: LayerCase, dtype: 'F64' | 'F32' = 'F32'): Uint8Array {
  const { name, config, x, weights, inputs, gradY, recorded, dropOrderOpen } = layerCase;
  const tensors = new Map<string, Tensor>();
  const setFloats = (key: string, { rows, cols, data }: Matrix) =>
    tensors.set(key, fromFloat64(data, [rows, cols], dtype));
  const setIds = (key: string, ids: Int32Array) => tensors.set(key, fromIntegers(ids, [ids.length], 'I64'));
  setFloats('x', x);
  for (const [key, tensor] of weightTensors(weights)) tensors.set(key, encode(tensor, dtype));
  if (inputs.noise) setFloats('noise', inputs.noise);
  if (inputs.tokenIds) setIds('token_ids', inputs.tokenIds);
  if (inputs.hashTable) setIds('hash_table', inputs.hashTable);
  if (inputs.tokenMask) tensors.set('token_mask', fromIntegers(inputs.tokenMask, [x.rows], 'U8'));
  if (gradY) setFloats('grad.y', gradY);
  for (const [key, tensor] of recorded) tensors.set(`out.${key}`, encode(tensor, 'F64'));
  const sizes = { numTokens: x.rows, dModel: x.cols, dFf: weights.up[0].rows };
  const metadata = new Map([
    ['format', FORMAT],
    ['name', name],
    ['config', formatConfig({ config, sizes, dropOrderOpen })],
  ]);
  return writeSafetensors({ tensors, metadata });
}

/**
 * What somebody else computed for the case in the same file, under a prefix of its own: `out32.` is one float32 backend's.
 * Without the prefix the names are those of `recorded`; empty where the file has none.
 * @throws SafetensorsError | TypeError for a file that is none, or a tensor that is neither floats nor flags
 */
export function recordedUnder(prefix: string, file: Uint8Array): NamedTensors {
  return readRecorded(readSafetensors(file).tensors, prefix);
}

/** A file of a backend's outputs, by their names in a layer case without `out.`: floats in `dtype`, decisions U8. */
export function writeOutputs(
  outputs: NamedTensors,
  dtype: 'F64' | 'F32',
  metadata: SafetensorsFile['metadata'],
): Uint8Array {
  const tensors = new Map(Array.from(outputs, ([name, tensor]) => [name, encode(tensor, dtype)]));
  return writeSafetensors({ tensors, metadata });
}

/**
 * What `writeOutputs` wrote, or somebody else: outputs by their names in a layer case, with or without `out.`.
 * @throws TypeError | RangeError | SafetensorsError for bytes that are no such file
 */
export function readOutputs(file: Uint8Array): { outputs: NamedTensors; metadata: SafetensorsFile['metadata'] } {
  const { tensors, metadata } = readSafetensors(file);
  const outputs = new Map(Array.from(tensors, ([key, tensor]) => [key.replace(/^out\./, ''), decode(tensor, key)]));
  return { outputs, metadata };
}

function readInputs(tensors: ReadonlyMap<string, Tensor>, noise: Matrix | undefined): RoutingInputs {
  const integers = (name: string) => {
    const tensor = tensors.get(name);
    if (!tensor) return undefined;
    checkDimensions(name, tensor, 1);
    return toInt32(tensor, name);
  };
  const tokenIds = integers('token_ids');
  const hashTable = integers('hash_table');
  const mask = integers('token_mask');
  const bad = mask?.findIndex(real => real !== 0 && real !== 1) ?? -1;
  if (bad >= 0) throw new RangeError(`"token_mask" expected 1 = real or 0 = padding, got ${mask![bad]} at [${bad}]`);
  return {
    ...(noise && { noise }),
    ...(tokenIds && { tokenIds }),
    ...(hashTable && { hashTable }),
    ...(mask && { tokenMask: Uint8Array.from(mask) }),
  };
}

function readRecorded(tensors: ReadonlyMap<string, Tensor>, prefix = 'out.'): NamedTensors {
  const recorded: NamedTensors = new Map();
  for (const [key, tensor] of tensors) {
    if (key.startsWith(prefix)) recorded.set(key.slice(prefix.length), decode(tensor, key));
  }
  return recorded;
}

/** Integers of any width, and BOOL, are decisions; floats of any width are exact in float64. */
function decode(tensor: Tensor, name: string): NamedTensor {
  const { shape, dtype } = tensor;
  if (/F/.test(dtype)) return { shape, data: toFloat64(tensor, name) };
  const integers = toInt32(tensor, name);
  const bad = integers.findIndex(value => value < 0 || value > 255);
  if (bad >= 0) throw new RangeError(`"${name}" expected integers from 0 to 255, got ${integers[bad]} at [${bad}]`);
  return { shape, data: Uint8Array.from(integers) };
}

/** Decisions are U8, all else floats. */
function encode({ shape, data }: NamedTensor, dtype: FloatDtype): Tensor {
  return data instanceof Uint8Array ? fromIntegers(data, shape, 'U8') : fromFloat64(data, shape, dtype);
}

function checkDimensions(name: string, { shape }: Tensor, numDimensions: number): void {
  if (shape.length === numDimensions) return;
  throw new RangeError(`"${name}" expected ${numDimensions} dimensions, got shape [${shape.join(', ')}]`);
}

function checkSizes(sizes: StatedSizes, x: Matrix, weights: Weights): void {
  const actual: Record<keyof StatedSizes, number> = { numTokens: x.rows, dModel: x.cols, dFf: weights.up[0].rows };
  const key = (Object.keys(actual) as (keyof StatedSizes)[]).find(
    k => sizes[k] !== undefined && sizes[k] !== actual[k],
  );
  if (key)
    throw new RangeError(`"config" expected the sizes of its tensors (${key} ${actual[key]}), got ${sizes[key]}`);
}
