/** ONNX models, written by hand: the protobuf wire format, and of onnx.proto3 the fields that the benches use. */

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
  readonly attributes?: Readonly<Record<string, number | string>>;
  /** Absent: ONNX's own operators. */
  readonly domain?: string;
}

export interface Constant {
  readonly name: string;
  readonly dims: readonly number[];
  readonly data: Float32Array;
}

export interface Value {
  readonly name: string;
  readonly type: 'float' | 'int64';
  /** A name stands for a length that only a call tells. */
  readonly dims: readonly (number | string)[];
}

const TENSOR_TYPE = { float: 1, int64: 7 } as const;
const ATTRIBUTE_TYPE = { number: 2, string: 3 } as const;
const IR_VERSION = 10;
const OPSETS: ReadonlyMap<string, number> = new Map([
  ['', 18],
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

/** AttributeProto. */
function encodeAttribute(name: string, value: number | string): Buffer {
  const type = typeof value === 'number' ? 'number' : 'string';
  return Buffer.concat([field(1, name), field(type === 'number' ? 3 : 4, value), field(20, ATTRIBUTE_TYPE[type])]);
}

/** TensorProto; the data as they lie in memory, which ONNX wants little-endian. */
function encodeConstant({ name, dims, data }: Constant): Buffer {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return Buffer.concat([
    ...dims.map(dim => field(1, dim)),
    field(2, TENSOR_TYPE.float),
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

/** Seven bits a byte, the lowest first; the eighth bit says that more follow. */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  bytes.push(value);
  return Buffer.from(bytes);
}
