/** ONNX models, written by hand: the protobuf wire format, and of onnx.proto3 the fields that are used here. */

export interface Model {
  readonly nodes: readonly Node[];
  readonly constants: readonly Constant[];
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
}

/** One operator. An input named '' is left out. */
export interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, Attribute>>;
  /** Absent: ONNX's own operators. */
  readonly domain?: string;
}

/** A number is an integer; a float says so. */
export type Attribute = number | string | { readonly float: number };

export interface Constant {
  readonly name: string;
  readonly dims: readonly number[];
  readonly data: Float32Array | Int32Array | BigInt64Array;
}

export interface Value {
  readonly name: string;
  readonly type: keyof typeof TENSOR_TYPE;
  /** A name stands for a length that only a call tells. */
  readonly dims: readonly (number | string)[];
}

const TENSOR_TYPE = { float: 1, int32: 6, int64: 7 } as const;
const IR_VERSION = 10;
const OPSETS: ReadonlyMap<string, number> = new Map([
  ['', 20],
  ['com.microsoft', 1],
]);

/** ModelProto. */
export function encodeModel({ nodes, constants, inputs, outputs }: Model): Uint8Array {
  const graph = Buffer.concat([
    ...nodes.map(node => field(1, encodeNode(node))),
    field(2, 'layer'),
    ...constants.map(constant => field(5, encodeConstant(constant))),
    ...inputs.map(value => field(11, encodeValue(value))),
    ...outputs.map(value => field(12, encodeValue(value))),
  ]);
  const opsets = [...OPSETS].map(([domain, version]) => field(8, Buffer.concat([field(1, domain), field(2, version)])));
  return Buffer.concat([field(1, IR_VERSION), field(7, graph), ...opsets]);
}

/** NodeProto. */
function encodeNode({ op, inputs, outputs, attributes = {}, domain = '' }: Node): Buffer {
  return Buffer.concat([
    ...inputs.map(name => field(1, name)),
    ...outputs.map(name => field(2, name)),
    field(4, op),
    ...Object.entries(attributes).map(([name, value]) => field(5, encodeAttribute(name, value))),
    field(7, domain),
  ]);
}

/** AttributeProto, whose types are FLOAT = 1, INT = 2, STRING = 3. */
function encodeAttribute(name: string, value: Attribute): Buffer {
  if (typeof value === 'number') return Buffer.concat([field(1, name), field(3, value), field(20, 2)]);
  if (typeof value === 'string') return Buffer.concat([field(1, name), field(4, value), field(20, 3)]);
  return Buffer.concat([field(1, name), floatField(2, value.float), field(20, 1)]);
}

/** TensorProto; the data as they lie in memory, which ONNX wants little-endian. */
function encodeConstant({ name, dims, data }: Constant): Buffer {
  const type = data instanceof Float32Array ? 'float' : data instanceof Int32Array ? 'int32' : 'int64';
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return Buffer.concat([
    ...dims.map(dim => field(1, dim)),
    field(2, TENSOR_TYPE[type]),
    field(8, name),
    field(9, bytes),
  ]);
}

/** ValueInfoProto. */
function encodeValue({ name, type, dims }: Value): Buffer {
  const shape = dims.map(dim => field(1, field(typeof dim === 'number' ? 1 : 2, dim)));
  const tensor = Buffer.concat([field(1, TENSOR_TYPE[type]), field(2, Buffer.concat(shape))]);
  return Buffer.concat([field(1, name), field(2, field(1, tensor))]);
}

/** One field: a whole number as a varint; a string or bytes after their length. */
function field(number: number, value: number | string | Uint8Array): Buffer {
  if (typeof value === 'number') return Buffer.concat([varint(number * 8), varint(value)]);
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  return Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);
}

/** Four bytes, little-endian. */
function floatField(number: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([varint(number * 8 + 5), bytes]);
}

/** Seven bits a byte, the lowest first; the eighth bit says that more follow. */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  bytes.push(value);
  return Buffer.from(bytes);
}
