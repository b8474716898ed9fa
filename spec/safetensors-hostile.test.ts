/** Files of tensors, random and then damaged: each is read as a slow, independent reader reads it, or refused as by it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type Dtype,
  readSafetensors,
  SafetensorsError,
  type SafetensorsFile,
  type Tensor,
  writeSafetensors,
} from 'xmoe/safetensors';
import { property } from './property.js';

const BYTES: Record<Dtype, number> = {
  ...{ U64: 8, I64: 8, F64: 8, C64: 8, F32: 4, U32: 4, I32: 4, BF16: 2, F16: 2, U16: 2, I16: 2 },
  ...{ F8_E5M2FNUZ: 1, F8_E4M3FNUZ: 1, F8_E8M0: 1, F8_E4M3: 1, F8_E5M2: 1, I8: 1, U8: 1, BOOL: 1 },
};

const LONE_SURROGATE = /\p{Surrogate}/u;
const STRING = /"(?:[^"\\]|\\.)*"(\s*:)?/gs;

/** The format again: JSON.parse, a count of keys, and a count of how often each byte of data is claimed. */
function slowRead(file: Uint8Array): SafetensorsFile | undefined {
  if (file.length < 8) return undefined;
  const headerLength = new DataView(file.buffer, file.byteOffset).getBigUint64(0, true);
  if (headerLength > file.length - 8) return undefined;
  const data = file.slice(8 + Number(headerLength));
  let text: string;
  let header: Record<string, Record<string, unknown>>;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
      file.subarray(8, file.length - data.length),
    );
    header = JSON.parse(text);
  } catch {
    return undefined;
  }
  const strings = [...text.matchAll(STRING)];
  const keysIn = (value: unknown): number =>
    typeof value !== 'object' || value === null || Array.isArray(value)
      ? 0
      : Object.values(value).reduce((sum, member) => sum + keysIn(member), Object.keys(value).length);
  const plain =
    text[0] === '{' &&
    !/[^\s\d{}[\],:]/.test(text.replace(STRING, '')) && // a sign, a fraction, an exponent or a literal
    !strings.some(([s]) => LONE_SURROGATE.test(JSON.parse(s.replace(/\s*:$/, '')))) &&
    strings.filter(([, colon]) => colon !== undefined).length === keysIn(header);
  if (!plain) return undefined;

  const { __metadata__ = {}, ...entries } = header;
  if (typeof __metadata__ !== 'object' || Array.isArray(__metadata__)) return undefined;
  if (!Object.values(__metadata__).every(value => typeof value === 'string')) return undefined;
  const claims = new Uint8Array(data.length);
  const bounds = new Set([0]);
  const empty: number[] = [];
  const tensors = new Map<string, Tensor>();
  for (const [name, entry] of Object.entries(entries)) {
    if (Object.keys(entry).sort().join() !== 'data_offsets,dtype,shape') return undefined;
    const { dtype, shape, data_offsets: offsets } = entry;
    if (typeof dtype !== 'string' || !Object.hasOwn(BYTES, dtype)) return undefined;
    if (!Array.isArray(shape) || shape.length > 64 || !shape.every(Number.isSafeInteger)) return undefined;
    if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(Number.isSafeInteger)) return undefined;
    let product = 1n;
    for (const factor of [...shape, BYTES[dtype as Dtype]]) {
      product *= BigInt(factor);
      if (product >= 2n ** 53n) return undefined;
    }
    const [begin, end] = offsets;
    if (BigInt(end - begin) !== product || end > data.length) return undefined;
    for (let i = begin; i < end; i++) claims[i]++;
    if (begin === end) empty.push(begin);
    bounds.add(end > begin ? end : 0);
    tensors.set(name, { dtype: dtype as Dtype, shape, bytes: data.slice(begin, end) });
  }
  if (!claims.every(count => count === 1) || !empty.every(at => bounds.has(at))) return undefined;
  return { tensors, metadata: new Map(Object.entries(__metadata__ as Record<string, string>)) };
}

/** What readSafetensors says; undefined where it refuses. */
function read(file: Uint8Array): SafetensorsFile | undefined {
  try {
    return readSafetensors(file);
  } catch (error) {
    if (!(error instanceof SafetensorsError)) throw error;
    assert.match(error.message, /^("(file|header|header length|data|__metadata__)"|tensor ").* expected .*, got /s);
    assert.ok(error.message.length < 5000);
    return undefined;
  }
}

const text = fc.oneof(
  fc.constantFrom('', 'a', 'b', '__proto__', '10', '9', '__metadata', 'é', '\u{1d54f}', '"', '\\', '\0', '\u2028'),
  fc.string({ unit: 'binary' }).filter(s => !LONE_SURROGATE.test(s) && s !== '__metadata__'),
);

const anyTensor = fc
  .tuple(fc.constantFrom(...(Object.keys(BYTES) as Dtype[])), fc.array(fc.nat(3), { maxLength: 4 }))
  .chain(([dtype, shape]) => {
    const length = shape.reduce((product, n) => product * n, BYTES[dtype]);
    return fc.uint8Array({ minLength: length, maxLength: length }).map(bytes => ({ dtype, shape, bytes }));
  });

const distinct = <T>(value: fc.Arbitrary<T>) =>
  fc.uniqueArray(fc.tuple(text, value), { selector: ([key]) => key, maxLength: 5 });

interface Parts {
  readonly tensors: [string, Tensor][];
  readonly metadata: [string, string][];
}

const anyParts: fc.Arbitrary<Parts> = fc.record({ tensors: distinct(anyTensor), metadata: distinct(text) });

const write = ({ tensors, metadata }: Parts) =>
  writeSafetensors({ tensors: new Map(tensors), metadata: new Map(metadata) });

property('a file is read as it was written, aligned, and written in one way only', anyParts, parts => {
  const file = write(parts);
  const read = readSafetensors(file);
  assert.deepEqual(read, { tensors: new Map(parts.tensors), metadata: new Map(parts.metadata) });
  for (const { dtype, bytes } of read.tensors.values()) assert.equal(bytes.byteOffset % BYTES[dtype], 0);
  assert.deepEqual(write({ tensors: [...parts.tensors].reverse(), metadata: [...parts.metadata].reverse() }), file);
  assert.deepEqual(writeSafetensors(read), file);
});

/** Draws a number below `n`. */
type Draw = (n: number) => number;
type Edit = (tokens: string[], draw: Draw) => void;

const isString = (token: string) => token[0] === '"';
const isNumber = (token: string) => /^\d/.test(token);

function replace(tokens: string[], draw: Draw, which: (token: string) => boolean, by: (token: string) => string): void {
  const places = tokens.flatMap((token, i) => (which(token) ? [i] : []));
  if (places.length === 0) return;
  const i = places[draw(places.length)];
  tokens[i] = by(tokens[i]);
}

/** The members of the outermost object, by JSON.parse: for headers that are still good. */
function members(tokens: string[]): string[] {
  try {
    const pairs = Object.entries(JSON.parse(tokens.join('')));
    return pairs.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  } catch {
    return [];
  }
}

/** Edits of a header, as tokens, that change nothing of what it says. */
const HARMLESS: Edit[] = [
  (tokens, draw) => tokens.splice(draw(tokens.length) + 1, 0, [' ', '\n', '\t', '\r'][draw(4)]),
  (tokens, draw) =>
    replace(tokens, draw, isString, token => {
      const escaped = Array.from({ length: JSON.parse(token).length }, (_, i) => JSON.parse(token).charCodeAt(i));
      return `"${escaped.map(unit => `\\u${unit.toString(16).padStart(4, '0')}`).join('')}"`;
    }),
  (tokens, draw) => {
    const all = members(tokens);
    if (all.length > 1) tokens.splice(0, tokens.length, `{${[...all.splice(draw(all.length), 1), ...all]}}`);
  },
];

const NUMBERS = [
  '0',
  '1',
  '2',
  '3',
  '8',
  '-1',
  '1.0',
  '1e0',
  '01',
  '4294967296',
  '9007199254740991',
  '9007199254740993',
];
const STRINGS = [
  'a',
  'dtype',
  'shape',
  'data_offsets',
  '__metadata__',
  '__proto__',
  'U8',
  'BOOL',
  'F64',
  'F4',
  '\\ud800',
];
const PIECES = [
  '{',
  '}',
  '[',
  ']',
  ':',
  ',',
  'null',
  'true',
  '{}',
  '[]',
  '"',
  '\\',
  '\0',
  '['.repeat(5000),
  '{"a":'.repeat(5000),
];

/** Edits that mostly do damage. */
const HARMFUL: Edit[] = [
  (tokens, draw) => replace(tokens, draw, isNumber, token => `${Math.max(Number(token) + draw(5) - 2, 0)}`),
  (tokens, draw) => replace(tokens, draw, isNumber, () => NUMBERS[draw(NUMBERS.length)]),
  (tokens, draw) => replace(tokens, draw, isString, () => `"${STRINGS[draw(STRINGS.length)]}"`),
  (tokens, draw) =>
    replace(
      tokens,
      draw,
      () => true,
      () => PIECES[draw(PIECES.length)],
    ),
  (tokens, draw) => tokens.splice(draw(tokens.length), draw(4)),
  (tokens, draw) => tokens.splice(draw(tokens.length), 0, ...tokens.slice(draw(tokens.length)).slice(0, draw(20))),
  (tokens, draw) => {
    const all = members(tokens);
    if (all.length > 0) tokens.splice(0, tokens.length, `{${[...all, all[draw(all.length)]]}}`);
  },
];

/** Damage to the bytes of the whole file. */
const BYTE_DAMAGE: ((file: Uint8Array, draw: Draw) => Uint8Array)[] = [
  (file, draw) => file.slice(0, draw(file.length)),
  (file, draw) => Uint8Array.of(...file, ...new Uint8Array(draw(9))),
  (file, draw) => {
    file[draw(file.length)] ^= 1 << draw(8);
    return file;
  },
  (file, draw) => {
    file[draw(8)] = draw(256);
    return file;
  },
  (file, draw) => {
    file[0] += draw(5) - 2;
    return file;
  },
];

const draws = fc.array(fc.nat(), { minLength: 8, maxLength: 8 });
const steps = (maxLength: number, kinds: number) => fc.array(fc.tuple(fc.nat(kinds - 1), draws), { maxLength });

function drawFrom(numbers: number[]): Draw {
  let i = 0;
  return n => numbers[i++ % numbers.length] % n;
}

const anyFile = fc
  .record({
    parts: anyParts,
    harmless: steps(3, HARMLESS.length),
    harmful: fc.oneof(fc.constant([]), steps(3, HARMFUL.length)),
    damage: fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: steps(2, BYTE_DAMAGE.length) }),
  })
  .map(({ parts, harmless, harmful, damage }) => {
    const good = write(parts);
    const start = 8 + Number(new DataView(good.buffer).getBigUint64(0, true));
    const tokens = new TextDecoder().decode(good.subarray(8, start)).match(/"(?:[^"\\]|\\.)*"|\d+|./gs) ?? [];
    for (const [kind, numbers] of harmless) HARMLESS[kind](tokens, drawFrom(numbers));
    for (const [kind, numbers] of harmful) HARMFUL[kind](tokens, drawFrom(numbers));
    const header = new TextEncoder().encode(tokens.join(''));
    let file: Uint8Array = Uint8Array.of(...new Uint8Array(8), ...header, ...good.subarray(start));
    new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
    for (const [kind, numbers] of damage) if (file.length > 8) file = BYTE_DAMAGE[kind](file, drawFrom(numbers));
    return { file, edited: harmless.length > 0, damaged: harmful.length > 0 || damage.length > 0 };
  });

property(
  'a damaged file is read as the slow reader reads it, or refused with one class of error',
  anyFile,
  ({ file, edited, damaged }, reach) => {
    const expected = slowRead(file);
    assert.deepEqual(read(file), expected);
    if (!damaged) assert.notEqual(expected, undefined);
    if (expected === undefined) reach('refused');
    else reach(damaged ? 'damaged, and read' : edited ? 'edited, and read' : 'read');
  },
  ['read', 'edited, and read', 'refused'],
);

test('every prefix and every flipped bit of a small file', () => {
  const file = write({
    tensors: [
      ['a', { dtype: 'I16', shape: [1], bytes: Uint8Array.of(1, 2) }],
      ['b', { dtype: 'U8', shape: [2, 0], bytes: new Uint8Array(0) }],
    ],
    metadata: [['k', 'v']],
  });
  for (let length = 0; length < file.length; length++) assert.equal(read(file.subarray(0, length)), undefined);
  for (let bit = 0; bit < file.length * 8; bit++) {
    const flipped = file.slice();
    flipped[bit >> 3] ^= 1 << (bit & 7);
    assert.deepEqual(read(flipped), slowRead(flipped), `bit ${bit}`);
  }
});
