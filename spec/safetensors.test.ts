/** Files of tensors: the format byte by byte, and every fault by its message. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { type Dtype, readSafetensors, type SafetensorsFile, type Tensor, writeSafetensors } from 'xmoe/safetensors';

const ROOT = new URL('../../', import.meta.url);

/** Wide elements first, the order in which tensors are written. */
const BYTES: Record<Dtype, number> = {
  ...{ U64: 8, I64: 8, F64: 8, C64: 8, F32: 4, U32: 4, I32: 4, BF16: 2, F16: 2, U16: 2, I16: 2 },
  ...{ F8_E5M2FNUZ: 1, F8_E4M3FNUZ: 1, F8_E8M0: 1, F8_E4M3: 1, F8_E5M2: 1, I8: 1, U8: 1, BOOL: 1 },
};

/** A file of this header, which may be bytes that are no text, and so many bytes of data: 1, 2, 3, … */
function fileOf(header: string | Uint8Array, dataLength = 0): Uint8Array {
  const text = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  const file = new Uint8Array(8 + text.length + dataLength);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  for (let i = 0; i < dataLength; i++) file[8 + text.length + i] = i + 1;
  return file;
}

function refuses(file: Uint8Array, message: string | RegExp): void {
  assert.throws(() => readSafetensors(file), { name: 'SafetensorsError', message });
}

const entry = (dtype: string, shape: string, offsets: string) =>
  `{"dtype":${dtype},"shape":${shape},"data_offsets":${offsets}}`;

/** A good tensor of two bytes. */
const PAIR = entry('"U8"', '[2]', '[0,2]');

const ALL_DTYPES = Object.keys(BYTES).join(', ');

test('reads a file that is written out byte by byte', () => {
  const header = '{"__metadata__":{"by":"hand"},"a":{"dtype":"I16","shape":[1,2],"data_offsets":[0,4]}}';
  const file = Uint8Array.of(85, 0, 0, 0, 0, 0, 0, 0, ...Array.from(header, c => c.charCodeAt(0)), 1, 2, 3, 4);
  assert.deepEqual(readSafetensors(file), {
    tensors: new Map([['a', { dtype: 'I16', shape: [1, 2], bytes: Uint8Array.of(1, 2, 3, 4) }]]),
    metadata: new Map([['by', 'hand']]),
  });
});

test('the smallest file', () => {
  const empty = { tensors: new Map(), metadata: new Map() };
  assert.deepEqual(readSafetensors(Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0, 123, 125)), empty);
  const written = Uint8Array.of(8, 0, 0, 0, 0, 0, 0, 0, 123, 125, 32, 32, 32, 32, 32, 32);
  assert.deepEqual(writeSafetensors(empty), written);
});

test('white space, any order of keys and of tensors, and escapes mean nothing', () => {
  const plain = fileOf(`{"a":${entry('"U8"', '[2]', '[0,2]')},"b":${entry('"U8"', '[]', '[2,3]')}}`, 3);
  const odd = fileOf(
    '{ "\\u0062":\n{"data_offsets" :[ 2,3\t],"\\u0073hape":[ ],"dtype":"\\u00558"} ,\r\n"a":{"shape":[2],"dtype":"U8","data_offsets":[0,2]} } \n ',
    3,
  );
  assert.deepEqual(readSafetensors(odd), readSafetensors(plain));
});

test('tensors come in order of their data, which are views of the file at any alignment', () => {
  const file = fileOf(`{"10":${entry('"F64"', '[]', '[3,11]')},"2":${entry('"U8"', '[3]', '[0,3]')}}`, 11);
  const inside = new Uint8Array(file.length + 5);
  inside.set(file, 5);
  const { tensors } = readSafetensors(inside.subarray(5));
  assert.deepEqual([...tensors.keys()], ['2', '10']);
  assert.deepEqual(tensors.get('2')?.bytes, Uint8Array.of(1, 2, 3));
  assert.deepEqual(tensors.get('10')?.bytes, Uint8Array.of(4, 5, 6, 7, 8, 9, 10, 11));
  for (const { bytes } of tensors.values()) assert.equal(bytes.buffer, inside.buffer);
});

test('every dtype, by the size of its elements', () => {
  for (const [dtype, size] of Object.entries(BYTES)) {
    const read = readSafetensors(fileOf(`{"a":${entry(`"${dtype}"`, '[3]', `[0,${3 * size}]`)}}`, 3 * size));
    assert.equal(read.tensors.get('a')?.dtype, dtype);
    const message = `tensor "a": "data_offsets" expected ${3 * size} bytes (${dtype} [3]), got [0, ${3 * size + 1}]`;
    refuses(fileOf(`{"a":${entry(`"${dtype}"`, '[3]', `[0,${3 * size + 1}]`)}}`, 3 * size + 1), message);
  }
});

test('names that are special elsewhere are names here', () => {
  const names = [
    '__proto__',
    'constructor',
    'toString',
    '',
    '0',
    '-1',
    'a"b\\c',
    '权重',
    '\u{1d54f}',
    '\u2028',
    '\0',
    'metadata',
  ];
  const members = names.map((name, i) => `${JSON.stringify(name)}:${entry('"U8"', '[1]', `[${i},${i + 1}]`)}`);
  const metadata = names.map((name, i) => `${JSON.stringify(name)}:"${i}"`);
  const file = readSafetensors(fileOf(`{"__metadata__":{${metadata}},${members}}`, names.length));
  assert.deepEqual([...file.tensors.keys()], names);
  assert.deepEqual(
    [...file.metadata],
    names.map((name, i) => [name, `${i}`]),
  );
  assert.equal(file.tensors.get('__proto__')?.bytes[0], 1);
  assert.equal(({} as Record<string, unknown>).dtype, undefined);
});

test('tensors without elements take no bytes, at any place between the others', () => {
  const none = (at: number) => entry('"F32"', '[2,0]', `[${at},${at}]`);
  const file = readSafetensors(fileOf(`{"z":${none(2)},"a":${PAIR},"y":${none(0)},"x":${none(2)}}`, 2));
  assert.deepEqual([...file.tensors.keys()], ['y', 'a', 'z', 'x']);
  refuses(
    fileOf(`{"a":${PAIR},"y":${none(1)}}`, 2),
    'tensor "y": "data_offsets" expected to begin at 2, where the data before it end, got [1, 1]',
  );
});

test('the product of a shape is taken from left to right, and each step is less than 2^53', () => {
  const [large, larger] = [2 ** 40, 2 ** 53 - 1];
  const of = (...shape: number[]) => fileOf(`{"a":${entry('"U8"', JSON.stringify(shape), '[0,0]')}}`);
  assert.deepEqual(readSafetensors(of(0, large, large)).tensors.get('a')?.shape, [0, large, large]);
  refuses(of(large, large, 0), `tensor "a": "shape" expected less than 2^53 bytes, got [${large}, ${large}, 0]`);
  refuses(of(larger, 2), `tensor "a": "shape" expected less than 2^53 bytes, got [${larger}, 2]`);
  refuses(of(larger), `tensor "a": "data_offsets" expected ${larger} bytes (U8 [${larger}]), got [0, 0]`);
  refuses(
    fileOf(`{"a":${entry('"F16"', `[${2 ** 52}]`, '[0,0]')}}`),
    `tensor "a": "shape" expected less than 2^53 bytes, got [${2 ** 52}]`,
  );
});

test('a wrong length of the file or of its header', () => {
  for (let length = 0; length < 8; length++) {
    refuses(new Uint8Array(length), `"file" expected at least 8 bytes, got ${length}`);
  }
  const withLength = (length: bigint) => {
    const file = fileOf('{}');
    new DataView(file.buffer).setBigUint64(0, length, true);
    return file;
  };
  refuses(withLength(0n), '"header length" expected at least 1 byte, got 0');
  refuses(withLength(3n), '"header length" expected at most the 2 bytes that follow it, got 3');
  refuses(withLength(100_000_000n), '"header length" expected at most the 2 bytes that follow it, got 100000000');
  refuses(withLength(100_000_001n), '"header length" expected at most 100000000 bytes, got 100000001');
  refuses(withLength(2n ** 64n - 1n), /^"header length" expected at most 100000000 bytes, got 1844674407370955/);
  refuses(withLength(1n), '"header" expected a string, got the end of the text');
  assert.throws(() => readSafetensors(new ArrayBuffer(10) as unknown as Uint8Array), {
    name: 'TypeError',
    message: '"file" expected a Uint8Array, got object',
  });
});

test('a header that is not UTF-8, or does not begin with its brace', () => {
  const quoted = (...bytes: number[]) => Uint8Array.of(0x7b, 0x22, ...bytes, 0x22, 0x3a);
  const notText = '"header" expected UTF-8, got bytes that are not';
  refuses(fileOf(quoted(0xff)), notText);
  refuses(fileOf(quoted(0xc0, 0x80)), notText); // an overlong NUL
  refuses(fileOf(quoted(0xed, 0xa0, 0x80)), notText); // a lone surrogate
  refuses(fileOf(quoted(0xe2, 0x82)), notText); // a character cut short
  refuses(fileOf(quoted(0xf4, 0x90, 0x80, 0x80)), notText); // beyond U+10FFFF
  refuses(fileOf('\ufeff{}'), '"header" expected byte 123, "{", at its start, got 239');
  refuses(fileOf(' {}'), '"header" expected byte 123, "{", at its start, got 32');
  refuses(fileOf('[]'), '"header" expected byte 123, "{", at its start, got 91');
});

const keys = 'dtype, shape and two data_offsets';
const integer = 'an integer from 0 to 2^53 - 1';

/** Header, the data after it, the message. */
const FAULTS: [string, number, string | RegExp][] = [
  // What is no JSON.
  ['{', 0, '"header" expected a string, got the end of the text'],
  ['{"a"', 0, 'tensor "a" expected ":", got the end of the text'],
  ['{"a":', 0, 'tensor "a" expected an object, got the end of the text'],
  [`{"a":${PAIR}`, 2, '"header" expected "," or "}", got the end of the text'],
  [`{"a":${PAIR},}`, 2, '"header" expected a string, got }'],
  [`{"a":${PAIR}}}`, 2, '"header" expected to end after its last brace, got }'],
  [`{"a":${PAIR}}\0`, 2, '"header" expected to end after its last brace, got \\u{0}'],
  [`{"a":${PAIR} "b":${PAIR}}`, 2, '"header" expected "," or "}", got "b"'],
  [`{a:${PAIR}}`, 2, '"header" expected a string, got a'],
  [`{"a:${PAIR}}`, 2, 'tensor "a:{" expected ":", got dtype'],
  ['{"a\nb":1}', 0, '"header" expected a string without control characters, got "a\\u{a}b"'],
  ['{"a\\x":1}', 0, '"header" expected a string with valid escapes, got "a\\x"'],
  ['{"a\\u12":1}', 0, '"header" expected a string with valid escapes, got "a\\u12"'],
  ['{"a\\', 0, '"header" expected a string that ends, got "a'],
  ['{"a\\ud800":1}', 0, '"header" expected a string without lone surrogates, got "a\\ud800"'],
  ['{"a\\udc00\\ud800":1}', 0, '"header" expected a string without lone surrogates, got "a\\udc00\\ud800"'],
  // What comes twice.
  [`{"a":${PAIR},"a":${PAIR}}`, 2, 'tensor "a" expected once, got it a second time'],
  [`{"a":${PAIR},"b":${PAIR},"\\u0061":${PAIR}}`, 2, 'tensor "a" expected once, got it a second time'],
  [`{"__proto__":${PAIR},"__proto__":${PAIR}}`, 2, 'tensor "__proto__" expected once, got it a second time'],
  ['{"a":{"dtype":"U8","dtype":"U8","shape":[2]}}', 2, 'tensor "a": "dtype" expected once, got it a second time'],
  ['{"a":{"shape":[2],"sh\\u0061pe":[2]}}', 2, 'tensor "a": "shape" expected once, got it a second time'],
  ['{"__metadata__":{},"\\u005f_metadata__":{}}', 0, '"__metadata__" expected once, got it a second time'],
  ['{"__metadata__":{"k":"1","\\u006b":"1"}}', 0, '"__metadata__": "k" expected once, got it a second time'],
  // Metadata.
  ['{"__metadata__":null}', 0, '"__metadata__" expected an object, got null'],
  ['{"__metadata__":[]}', 0, '"__metadata__" expected an object, got ['],
  ['{"__metadata__":{"k":1}}', 0, '"__metadata__": "k" expected a string, got 1'],
  ['{"__metadata__":{"k":{"k":"v"}}}', 0, '"__metadata__": "k" expected a string, got {'],
  [
    '{"__metadata__":{"k":"\\udfff"}}',
    0,
    '"__metadata__": "k" expected a string without lone surrogates, got "\\udfff"',
  ],
  // Entries.
  ['{"a":[]}', 0, 'tensor "a" expected an object, got ['],
  ['{"a":null}', 0, 'tensor "a" expected an object, got null'],
  ['{"a":"U8"}', 0, 'tensor "a" expected an object, got "U8"'],
  ['{"a":{}}', 0, `tensor "a" expected ${keys}, got {}`],
  [
    '{"a":{"shape":[2],"data_offsets":[0,2]}}',
    2,
    `tensor "a" expected ${keys}, got {"shape":[2],"data_offsets":[0,2]}`,
  ],
  [
    '{"a":{"dtype":"U8","data_offsets":[0,2]}}',
    2,
    `tensor "a" expected ${keys}, got {"dtype":"U8","data_offsets":[0,2]}`,
  ],
  ['{"a":{"dtype":"U8","shape":[2]}}', 2, `tensor "a" expected ${keys}, got {"dtype":"U8","shape":[2]}`],
  [
    '{"a":{"dtype":"U8","strides":[1]}}',
    2,
    'tensor "a": "strides" expected to be dtype, shape or data_offsets, got another key',
  ],
  ['{"a":{"__proto__":{}}}', 2, 'tensor "a": "__proto__" expected to be dtype, shape or data_offsets, got another key'],
  // Dtypes.
  [`{"a":${entry('"F33"', '[2]', '[0,2]')}}`, 2, `tensor "a": "dtype" expected one of ${ALL_DTYPES}, got "F33"`],
  [`{"a":${entry('"u8"', '[2]', '[0,2]')}}`, 2, `tensor "a": "dtype" expected one of ${ALL_DTYPES}, got "u8"`],
  [`{"a":${entry('"F4"', '[4]', '[0,2]')}}`, 2, `tensor "a": "dtype" expected one of ${ALL_DTYPES}, got "F4"`],
  [`{"a":${entry('"toString"', '[2]', '[0,2]')}}`, 2, /^tensor "a": "dtype" expected one of .*, got "toString"$/],
  [`{"a":${entry('8', '[2]', '[0,2]')}}`, 2, 'tensor "a": "dtype" expected a string, got 8'],
  // Shapes.
  [`{"a":${entry('"U8"', '2', '[0,2]')}}`, 2, 'tensor "a": "shape" expected an array, got 2'],
  [`{"a":${entry('"U8"', '{"0":2}', '[0,2]')}}`, 2, 'tensor "a": "shape" expected an array, got {'],
  [`{"a":${entry('"U8"', '[1,-2]', '[0,2]')}}`, 2, `tensor "a": "shape[1]" expected ${integer}, got -2`],
  [`{"a":${entry('"U8"', '[-0]', '[0,0]')}}`, 0, `tensor "a": "shape[0]" expected ${integer}, got -0`],
  [`{"a":${entry('"U8"', '[2.0]', '[0,2]')}}`, 2, `tensor "a": "shape[0]" expected ${integer}, got 2.0`],
  [`{"a":${entry('"U8"', '[2e0]', '[0,2]')}}`, 2, `tensor "a": "shape[0]" expected ${integer}, got 2e0`],
  [`{"a":${entry('"U8"', '[02]', '[0,2]')}}`, 2, `tensor "a": "shape[0]" expected ${integer}, got 02`],
  [`{"a":${entry('"U8"', '["2"]', '[0,2]')}}`, 2, `tensor "a": "shape[0]" expected ${integer}, got "2"`],
  [`{"a":${entry('"U8"', '[[2]]', '[0,2]')}}`, 2, `tensor "a": "shape[0]" expected ${integer}, got [`],
  [`{"a":${entry('"U8"', '[null]', '[0,2]')}}`, 2, `tensor "a": "shape[0]" expected ${integer}, got null`],
  [
    `{"a":${entry('"U8"', '[0,9007199254740992]', '[0,0]')}}`,
    0,
    `tensor "a": "shape[1]" expected ${integer}, got 9007199254740992`,
  ],
  [
    `{"a":${entry('"U8"', '[0,9007199254740993]', '[0,0]')}}`,
    0,
    `tensor "a": "shape[1]" expected ${integer}, got 9007199254740993`,
  ],
  [`{"a":${entry('"U8"', '[2,]', '[0,2]')}}`, 2, `tensor "a": "shape[1]" expected ${integer}, got ]`],
  [`{"a":${entry('"U8"', '[1 2]', '[0,2]')}}`, 2, 'tensor "a": "shape" expected "," or "]", got 2'],
  [
    `{"a":${entry('"U8"', `[2${',1'.repeat(64)}]`, '[0,2]')}}`,
    2,
    'tensor "a": "shape[64]" expected the array to end after 64 integers, got 1',
  ],
  // Offsets.
  [
    `{"a":${entry('"U8"', '[2]', '[0]')}}`,
    2,
    `tensor "a" expected ${keys}, got {"dtype":"U8","shape":[2],"data_offsets":[0]}`,
  ],
  [
    `{"a":${entry('"U8"', '[2]', '[0,2,4]')}}`,
    2,
    'tensor "a": "data_offsets[2]" expected the array to end after 2 integers, got 4',
  ],
  [`{"a":${entry('"U8"', '[2]', '[-2,0]')}}`, 2, `tensor "a": "data_offsets[0]" expected ${integer}, got -2`],
  [`{"a":${entry('"U8"', '[2]', '[0,1e1]')}}`, 2, `tensor "a": "data_offsets[1]" expected ${integer}, got 1e1`],
  [`{"a":${entry('"U8"', '[2]', '[2,0]')}}`, 2, 'tensor "a": "data_offsets" expected 2 bytes (U8 [2]), got [2, 0]'],
  [`{"a":${entry('"U8"', '[2]', '[0,3]')}}`, 3, 'tensor "a": "data_offsets" expected 2 bytes (U8 [2]), got [0, 3]'],
  [`{"a":${entry('"F32"', '[]', '[0,2]')}}`, 2, 'tensor "a": "data_offsets" expected 4 bytes (F32 []), got [0, 2]'],
  [
    `{"a":${entry('"U8"', '[2]', '[1,3]')}}`,
    3,
    'tensor "a": "data_offsets" expected to begin at 0, where the data before it end, got [1, 3]',
  ],
  [
    `{"a":${PAIR},"b":${entry('"U8"', '[2]', '[3,5]')}}`,
    5,
    'tensor "b": "data_offsets" expected to begin at 2, where the data before it end, got [3, 5]',
  ],
  [
    `{"a":${PAIR},"b":${entry('"U8"', '[2]', '[1,3]')}}`,
    3,
    'tensor "b": "data_offsets" expected to begin at 2, where the data before it end, got [1, 3]',
  ],
  [
    `{"a":${PAIR},"b":${PAIR}}`,
    2,
    'tensor "b": "data_offsets" expected to begin at 2, where the data before it end, got [0, 2]',
  ],
  [`{"a":${PAIR}}`, 1, 'tensor "a": "data_offsets" expected at most 1, the length of the data, got [0, 2]'],
  [
    `{"a":${entry('"U8"', '[9007199254740991]', '[0,9007199254740991]')}}`,
    1,
    /^tensor "a": "data_offsets" expected at most 1, /,
  ],
  [`{"a":${PAIR}}`, 3, '"data" expected 2 bytes for its tensors, got 3'],
  ['{}', 1, '"data" expected 0 bytes for its tensors, got 1'],
];

test('every fault of a header is one error, which names the tensor', () => {
  for (const [header, dataLength, message] of FAULTS) refuses(fileOf(header, dataLength), message);
});

test('depth and length of what is wrong do not matter', () => {
  const deep = '['.repeat(1e6);
  refuses(fileOf(`{"a":${deep}`), 'tensor "a" expected an object, got [');
  refuses(fileOf('{"a":'.repeat(2e5)), 'tensor "a": "a" expected to be dtype, shape or data_offsets, got another key');
  refuses(fileOf(`{"a":{"shape":${deep}`), `tensor "a": "shape[0]" expected ${integer}, got [`);
  refuses(fileOf(`{"__metadata__":{"k":${deep}`), '"__metadata__": "k" expected a string, got [');
  refuses(
    fileOf(`{"a":{"shape":[${'9'.repeat(1e6)}]`),
    `tensor "a": "shape[0]" expected ${integer}, got ${'9'.repeat(40)}`,
  );
  refuses(fileOf(`{"a":{"shape":[${'1,'.repeat(1e6)}`), /^tensor "a": "shape\[64\]" expected the array to end/);
  refuses(fileOf(`{"${'a'.repeat(1e6)}":1}`), `tensor "${'a'.repeat(200)}…" expected an object, got 1`);
  refuses(
    fileOf(`{"${'\\n'.repeat(1e6)}`),
    '"header" expected a string that ends, got "\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\'.slice(
      0,
      -1,
    ),
  );
});

test('an error shows nothing that a terminal obeys', () => {
  const name = '\u001b[2J\u009b31m\u202eevil\u2066\u2028';
  const shown = 'tensor "\\u001b[2J\\u{9b}31m\\u{202e}evil\\u{2066}\\u{2028}" expected an object, got 1';
  refuses(fileOf(`{${JSON.stringify(name)}:1}`), shown);
  refuses(fileOf('{"a":\u001b[2J}'), 'tensor "a" expected an object, got \\u{1b}');
});

test('many tensors', () => {
  const members = Array.from({ length: 20_000 }, (_, i) => `"${i}":${entry('"U8"', '[1]', `[${i},${i + 1}]`)}`);
  const { tensors } = readSafetensors(fileOf(`{${members.reverse()}}`, 20_000));
  assert.equal(tensors.size, 20_000);
  assert.equal([...tensors.keys()][19_999], '19999');
});

const tensor = (dtype: Dtype, shape: number[], ...bytes: number[]): Tensor => ({
  dtype,
  shape,
  bytes: Uint8Array.from(bytes),
});

test('writes wide elements first, then by name, from a multiple of 8', () => {
  const file = writeSafetensors({
    tensors: new Map([
      ['b', tensor('U8', [3], 1, 2, 3)],
      ['a', tensor('U8', [], 4)],
      ['é', tensor('F16', [1, 1], 5, 6)],
      ['c', tensor('F64', [0])],
    ]),
    metadata: new Map([
      ['z', '"'],
      ['y', ''],
    ]),
  });
  const header =
    '{"__metadata__":{"y":"","z":"\\""},"c":{"dtype":"F64","shape":[0],"data_offsets":[0,0]},' +
    '"é":{"dtype":"F16","shape":[1,1],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[],"data_offsets":[2,3]},' +
    '"b":{"dtype":"U8","shape":[3],"data_offsets":[3,6]}}';
  const text = new TextEncoder().encode(header.padEnd(247)); // 248 bytes: é has two
  assert.deepEqual(file, Uint8Array.of(248, 0, 0, 0, 0, 0, 0, 0, ...text, 5, 6, 4, 1, 2, 3));
});

test('the writer refuses what could not be read', () => {
  const write = (name: string, tensor: unknown, metadata: [string, unknown][] = []) =>
    writeSafetensors({ tensors: new Map([[name, tensor]]), metadata: new Map(metadata) } as unknown as SafetensorsFile);
  const bytes = new Uint8Array(2);
  const good = { dtype: 'U8', shape: [2], bytes };
  const faults: [() => unknown, string | RegExp][] = [
    [() => write('__metadata__', good), 'tensor "__metadata__" expected another name, got this one'],
    [() => write('a\ud800', good), '"header" expected a string without lone surrogates, got "a\\ud800"'],
    [() => write('a', { ...good, shape: [3] }), 'tensor "a": "data_offsets" expected 3 bytes (U8 [3]), got [0, 2]'],
    [() => write('a', { ...good, dtype: 'F33' }), /^tensor "a": "dtype" expected one of .* got "F33"$/],
    [() => write('a', { ...good, shape: [-2] }), `tensor "a": "shape[0]" expected ${integer}, got -2`],
    [() => write('a', { ...good, shape: [NaN] }), `tensor "a": "shape[0]" expected ${integer}, got null`],
    [() => write('a', { ...good, shape: 2 }), 'tensor "a": "shape" expected an array, got 2'],
    [() => write('a', { dtype: 'U8', bytes }), /^tensor "a" expected dtype, shape and two data_offsets, got /],
    [() => write('a', good, [['k', 5]]), '"__metadata__": "k" expected a string, got 5'],
    [() => write('a', good, [['k', '\udc00']]), /^"__metadata__": "k" expected a string without lone surrogates/],
  ];
  for (const [attempt, message] of faults) assert.throws(attempt, { name: 'SafetensorsError', message });
});

/** What a file says, by JSON.parse and slices: for files that are known to be good. */
function contentOf(file: Uint8Array): SafetensorsFile {
  const start = 8 + Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const { __metadata__ = {}, ...entries } = JSON.parse(new TextDecoder().decode(file.subarray(8, start)));
  const tensors = Object.entries<{ dtype: Dtype; shape: number[]; data_offsets: number[] }>(entries).map(
    ([name, { dtype, shape, data_offsets }]): [string, Tensor] => {
      const [begin, end] = data_offsets.map(offset => start + offset);
      return [name, { dtype, shape, bytes: Uint8Array.from(file.subarray(begin, end)) }];
    },
  );
  return { tensors: new Map(tensors), metadata: new Map(Object.entries<string>(__metadata__)) };
}

for (const folder of ['spec/recordings/', 'spec/recordings/model/', 'models/']) {
  const names = readdirSync(new URL(folder, ROOT)).filter(name => name.endsWith('.safetensors'));
  test(`${folder}: ${names.length} files are read, and equal when written again`, () => {
    assert.notEqual(names.length, 0);
    for (const name of names) {
      const file = new Uint8Array(readFileSync(new URL(folder + name, ROOT)));
      const content = contentOf(file);
      assert.deepEqual(readSafetensors(file), content, name);
      assert.deepEqual(contentOf(writeSafetensors(readSafetensors(file))), content, name);
    }
  });
}
