/** Tensors to numbers, and back. */
import { byteLength, type Dtype, ELEMENT_BYTES, type FloatDtype, type IntegerDtype, type Tensor } from './dtype.js';
import { BFLOAT16, FLOAT16, type HalfFormat, narrowHalf, widenHalf } from './half.js';
import { quote } from './json.js';

/**
 * The values of a float tensor, each exactly; a NaN stays a NaN.
 * @param name the tensor's, for the error
 * @throws TypeError if the dtype is not a FloatDtype
 */
export function toFloat64(tensor: Tensor, name: string): Float64Array {
  const { read } = codecOf(FLOATS, tensor.dtype, `tensor ${quote(name)}: "dtype"`);
  const step = ELEMENT_BYTES[tensor.dtype];
  const view = viewOf(tensor);
  const values = new Float64Array(view.byteLength / step);
  for (let i = 0; i < values.length; i++) values[i] = read(view, i * step);
  return values;
}

/**
 * The values of an integer tensor; BOOL is 0 or 1.
 * @param name the tensor's, for the error
 * @throws TypeError if the dtype is not an IntegerDtype
 * @throws RangeError if a value does not fit in 32 bits, or a BOOL is neither 0 nor 1
 */
export function toInt32(tensor: Tensor, name: string): Int32Array {
  const { read, least, most } = codecOf(INTEGERS, tensor.dtype, `tensor ${quote(name)}: "dtype"`);
  const [low, high] = [Math.max(least, -(2 ** 31)), Math.min(most, 2 ** 31 - 1)];
  const step = ELEMENT_BYTES[tensor.dtype];
  const view = viewOf(tensor);
  const values = new Int32Array(view.byteLength / step);
  for (let i = 0; i < values.length; i++) {
    const value = read(view, i * step);
    if (value < low || value > high) throw outside(`tensor ${quote(name)}[${i}]`, low, high, value);
    values[i] = Number(value);
  }
  return values;
}

/**
 * A float tensor of the values nearest to `data`: rounded once, ties to even; what is too large becomes infinity.
 * @throws RangeError if `data` is not as long as the shape says
 */
export function fromFloat64(data: ArrayLike<number>, shape: readonly number[], dtype: FloatDtype): Tensor {
  const { write } = codecOf(FLOATS, dtype, '"dtype"');
  const tensor = blank(data, shape, dtype);
  const view = viewOf(tensor);
  for (let i = 0; i < data.length; i++) write(view, i * ELEMENT_BYTES[dtype], data[i]);
  return tensor;
}

/**
 * An integer tensor of exactly these values.
 * @throws RangeError if `data` is not as long as the shape says, or a value is not an integer that the dtype holds
 *   (64-bit ones: from -(2^53 - 1) to 2^53 - 1)
 */
export function fromIntegers(data: ArrayLike<number>, shape: readonly number[], dtype: IntegerDtype): Tensor {
  const { write, least, most } = codecOf(INTEGERS, dtype, '"dtype"');
  const tensor = blank(data, shape, dtype);
  const view = viewOf(tensor);
  for (let i = 0; i < data.length; i++) {
    const fits = Number.isInteger(data[i]) && data[i] >= least && data[i] <= most;
    if (!fits) throw outside(`"data[${i}]"`, least, most, data[i]);
    write(view, i * ELEMENT_BYTES[dtype], data[i]);
  }
  return tensor;
}

type Read<Value = number> = (view: DataView, at: number) => Value;
type Write = (view: DataView, at: number, value: number) => void;

const FLOATS: Record<FloatDtype, { read: Read; write: Write }> = {
  F64: { read: (v, at) => v.getFloat64(at, true), write: (v, at, x) => v.setFloat64(at, x, true) },
  F32: { read: (v, at) => v.getFloat32(at, true), write: (v, at, x) => v.setFloat32(at, x, true) },
  BF16: half(BFLOAT16),
  F16: half(FLOAT16),
};

function half(format: HalfFormat): { read: Read; write: Write } {
  return {
    read: (v, at) => widenHalf(v.getUint16(at, true), format),
    write: (v, at, x) => v.setUint16(at, narrowHalf(x, format), true),
  };
}

const LARGEST = Number.MAX_SAFE_INTEGER;

// biome-ignore format: a table reads best as a table
const INTEGERS: Record<IntegerDtype, { least: number; most: number; read: Read<number | bigint>; write: Write }> = {
  U64: integer(0, LARGEST, (v, at) => v.getBigUint64(at, true), (v, at, x) => v.setBigUint64(at, BigInt(x), true)),
  I64: integer(-LARGEST, LARGEST, (v, at) => v.getBigInt64(at, true), (v, at, x) => v.setBigInt64(at, BigInt(x), true)),
  U32: integer(0, 2 ** 32 - 1, (v, at) => v.getUint32(at, true), (v, at, x) => v.setUint32(at, x, true)),
  I32: integer(-(2 ** 31), 2 ** 31 - 1, (v, at) => v.getInt32(at, true), (v, at, x) => v.setInt32(at, x, true)),
  U16: integer(0, 65535, (v, at) => v.getUint16(at, true), (v, at, x) => v.setUint16(at, x, true)),
  I16: integer(-32768, 32767, (v, at) => v.getInt16(at, true), (v, at, x) => v.setInt16(at, x, true)),
  I8: integer(-128, 127, (v, at) => v.getInt8(at), (v, at, x) => v.setInt8(at, x)),
  U8: integer(0, 255, (v, at) => v.getUint8(at), (v, at, x) => v.setUint8(at, x)),
  BOOL: integer(0, 1, (v, at) => v.getUint8(at), (v, at, x) => v.setUint8(at, x)),
};

function integer(least: number, most: number, read: Read<number | bigint>, write: Write) {
  return { least, most, read, write };
}

function codecOf<Codec>(codecs: Record<string, Codec>, dtype: string, what: string): Codec {
  if (!Object.hasOwn(codecs, dtype)) {
    throw new TypeError(`${what} expected one of ${Object.keys(codecs).join(', ')}, got ${dtype}`);
  }
  return codecs[dtype];
}

/** A tensor of zeros, one for each of `data`. */
function blank(data: ArrayLike<number>, shape: readonly number[], dtype: Dtype): Tensor {
  const length = data.length * ELEMENT_BYTES[dtype];
  if (byteLength(dtype, shape) !== length) {
    throw new RangeError(`"data" expected the values of shape [${shape.join(', ')}], got ${data.length} of them`);
  }
  return { dtype, shape: [...shape], bytes: new Uint8Array(length) };
}

function viewOf({ bytes }: Tensor): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function outside(what: string, least: number, most: number, got: number | bigint): RangeError {
  return new RangeError(`${what} expected an integer from ${least} to ${most}, got ${got}`);
}
