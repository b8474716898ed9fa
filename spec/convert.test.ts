/** Numbers to tensors and back: exact when widened, rounded once when narrowed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Dtype, fromFloat64, fromIntegers, type IntegerDtype, toFloat64, toInt32 } from 'xmoe/safetensors';
import { property } from './property.js';

const half = (dtype: 'F16' | 'BF16', patterns: Uint16Array) => {
  const bytes = new Uint8Array(patterns.length * 2);
  patterns.forEach((bits, i) => {
    bytes.set([bits & 0xff, bits >> 8], 2 * i);
  });
  return { dtype, shape: [patterns.length], bytes };
};

const patternsOf = (bytes: Uint8Array) =>
  Uint16Array.from({ length: bytes.length / 2 }, (_, i) => bytes[2 * i] | (bytes[2 * i + 1] << 8));

const ALL = Uint16Array.from({ length: 65536 }, (_, i) => i);

/** IEEE 754: (-1)^s 2^(e-15) (1 + f/1024), or (-1)^s 2^-14 (f/1024) where e = 0. */
function float16(bits: number): number {
  const [s, e, f] = [bits >> 15, (bits >> 10) & 31, bits & 1023];
  if (e === 31) return f ? Number.NaN : (-1) ** s * Infinity;
  return (-1) ** s * (e === 0 ? 2 ** -14 * (f / 1024) : 2 ** (e - 15) * (1 + f / 1024));
}

/** A bfloat16 is the upper half of a float32. */
function bfloat16(bits: number): number {
  return new Float32Array(Uint32Array.of(bits * 65536).buffer)[0];
}

for (const [dtype, numberOf, quietNaN, infinity] of [
  ['F16', float16, 0x7e00, 0x7c00],
  ['BF16', bfloat16, 0x7fc0, 0x7f80],
] as const) {
  // 2 · the power of two that the largest numbers share
  const above = 2 * numberOf(infinity - (infinity & -infinity));

  test(`${dtype} widens each of the 65536 patterns exactly, and narrows it back`, () => {
    const values = toFloat64(half(dtype, ALL), 'all');
    assert.deepEqual([...values], Array.from(ALL, numberOf)); // plain arrays: of NaN only that it is one
    const back = patternsOf(fromFloat64(values, [65536], dtype).bytes);
    assert.deepEqual(
      back,
      ALL.map((bits, i) => (Number.isNaN(values[i]) ? quietNaN : bits)),
    );
  });

  test(`${dtype} rounds every tie to even, and every neighbour of a tie to the nearest`, () => {
    // Between two neighbouring numbers (the last: the largest and the power of two after it) every tie is exact.
    const lower = ALL.subarray(0, infinity);
    const ties = Float64Array.from(lower, b => (numberOf(b) + (b + 1 === infinity ? above : numberOf(b + 1))) / 2);
    const ulp = (x: number) => 2 ** (Math.floor(Math.log2(x)) - 52);
    for (const sign of [1, -1]) {
      const narrowed = (data: Float64Array) =>
        patternsOf(
          fromFloat64(
            data.map(x => sign * x),
            [data.length],
            dtype,
          ).bytes,
        ).map(b => b & 0x7fff);
      const even = lower.map(b => b + (b & 1));
      assert.deepEqual(narrowed(ties), even, 'ties');
      assert.deepEqual(narrowed(ties.map(x => x - ulp(x))), lower.slice(), 'just below');
      assert.deepEqual(
        narrowed(ties.map(x => x + ulp(x))),
        lower.map(b => b + 1),
        'just above',
      );
    }
  });

  test(`${dtype} becomes infinity from half a step above its largest number`, () => {
    const large = [above, 1.5 * above, 2 * above, 3 * above, 1e300, Number.MAX_VALUE, Infinity];
    const narrowed = patternsOf(fromFloat64([...large, ...large.map(x => -x)], [2, large.length], dtype).bytes);
    assert.deepEqual([...narrowed], [...large.map(() => infinity), ...large.map(() => infinity | 0x8000)]);
  });

  property(
    `${dtype} never has a nearer number than the one that is chosen`,
    fc.double({ noNaN: true }),
    x => {
      const [bits] = patternsOf(fromFloat64([x], [1], dtype).bytes);
      assert.equal(bits >> 15, Object.is(x, -0) || x < 0 ? 1 : 0, 'the sign');
      const magnitude = bits & 0x7fff;
      if (magnitude === infinity) return assert.ok(Math.abs(x) > numberOf(infinity - 1));
      const distance = (b: number) => Math.abs(Math.abs(x) - numberOf(b));
      if (magnitude > 0) assert.ok(distance(magnitude) <= distance(magnitude - 1));
      assert.ok(distance(magnitude) <= distance(magnitude + 1));
    },
    [],
    { examples: [0, -0, 5e-324, -5e-324, 1.7976931348623157e308, Infinity, -Infinity] },
  );
}

test('narrowing does not pass through float32', () => {
  // A little above the tie between 1 and its successor; as a float32 it would be the tie, which goes to 1.
  const above = [1 + 2 ** -11 + 2 ** -40, 1 + 2 ** -8 + 2 ** -40];
  // A little below the tie between an odd pattern and the even one after it, which a float32 tie would go to.
  const below = [1 + 3 * 2 ** -11 - 2 ** -40, 1 + 3 * 2 ** -8 - 2 ** -40];
  assert.deepEqual(patternsOf(fromFloat64([above[0], below[0]], [2], 'F16').bytes), Uint16Array.of(0x3c01, 0x3c01));
  assert.deepEqual(patternsOf(fromFloat64([above[1], below[1]], [2], 'BF16').bytes), Uint16Array.of(0x3f81, 0x3f81));
  // The smallest subnormals, and what rounds to zero: half of one is a tie with 0.
  assert.deepEqual(
    patternsOf(fromFloat64([2 ** -25, 2 ** -25 + 2 ** -77, -(2 ** -26)], [3], 'F16').bytes),
    Uint16Array.of(0, 1, 0x8000),
  );
});

test('published float16 and bfloat16 patterns', () => {
  const f16: [number, number][] = [
    [0x0001, 2 ** -24],
    [0x03ff, 1023 * 2 ** -24],
    [0x0400, 6.103515625e-5],
    [0x3555, 0.333251953125],
    [0x3bff, 0.99951171875],
    [0x3c00, 1],
    [0xc000, -2],
    [0x7bff, 65504],
  ];
  const bf16: [number, number][] = [
    [0x3f80, 1],
    [0xc000, -2],
    [0x4049, 3.140625],
    [0x3eab, 0.333984375],
    [0x7f7f, 3.3895313892515355e38],
  ];
  assert.deepEqual(
    [
      ...toFloat64(
        half(
          'F16',
          Uint16Array.from(f16, p => p[0]),
        ),
        'x',
      ),
    ],
    f16.map(p => p[1]),
  );
  assert.deepEqual(
    [
      ...toFloat64(
        half(
          'BF16',
          Uint16Array.from(bf16, p => p[0]),
        ),
        'x',
      ),
    ],
    bf16.map(p => p[1]),
  );
  assert.deepEqual(
    patternsOf(fromFloat64([65519.99, 65520, -65520], [3], 'F16').bytes),
    Uint16Array.of(0x7bff, 0x7c00, 0xfc00),
  );
});

test('F32 and F64 are little-endian, at any alignment, with subnormals, infinities, NaN and the sign of zero', () => {
  const at1 = (...bytes: number[]) => Uint8Array.of(99, ...bytes).subarray(1);
  const f32 = at1(0, 0, 128, 63, 1, 0, 0, 0, 0, 0, 128, 255, 0, 0, 192, 127, 0, 0, 0, 128);
  assert.deepEqual([...toFloat64({ dtype: 'F32', shape: [5], bytes: f32 }, 'x')], [1, 2 ** -149, -Infinity, NaN, -0]);
  const f64 = at1(0, 0, 0, 0, 0, 0, 240, 63, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128);
  assert.deepEqual([...toFloat64({ dtype: 'F64', shape: [3], bytes: f64 }, 'x')], [1, 5e-324, -0]);
  assert.deepEqual([...fromFloat64([1, 5e-324, -0], [3], 'F64').bytes], [...f64]);
  // Ties of float32 to even; its largest number and half a step more.
  const rounded = fromFloat64(
    [1 + 2 ** -24, 1 + 3 * 2 ** -24, 1 + 2 ** -24 + 2 ** -52, 2 ** 128 - 2 ** 103],
    [2, 2],
    'F32',
  );
  assert.deepEqual([...toFloat64(rounded, 'x')], [1, 1 + 2 ** -22, 1 + 2 ** -23, Infinity]);
});

property('float64 keeps every value', fc.array(fc.double()), values => {
  const tensor = fromFloat64(values, [values.length], 'F64');
  assert.deepEqual([...toFloat64(tensor, 'x')], values);
});

const integers: [IntegerDtype, number[], number[]][] = [
  ['I64', [255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 127, 0, 0, 0, 0], [-1, 2147483647]],
  ['U64', [1, 0, 0, 0, 0, 0, 0, 0], [1]],
  ['I32', [0, 0, 0, 128, 255, 255, 255, 127], [-2147483648, 2147483647]],
  ['U32', [255, 255, 255, 127], [2147483647]],
  ['I16', [0, 128, 255, 127], [-32768, 32767]],
  ['U16', [255, 255, 1, 0], [65535, 1]],
  ['I8', [128, 127, 255], [-128, 127, -1]],
  ['U8', [255, 0], [255, 0]],
  ['BOOL', [1, 0], [1, 0]],
];

for (const [dtype, bytes, values] of integers) {
  test(`${dtype} to int32 and back`, () => {
    const shape = [values.length];
    assert.deepEqual(toInt32({ dtype, shape, bytes: Uint8Array.from(bytes) }, 'x'), Int32Array.from(values));
    assert.deepEqual(fromIntegers(values, shape, dtype), { dtype, shape, bytes: Uint8Array.from(bytes) });
  });
}

/** The integers from low up to high, without high, that an integer dtype has. */
function rangeOf(dtype: IntegerDtype): [number, number] {
  const bits = dtype === 'BOOL' ? 1 : Number(dtype.slice(1));
  return dtype[0] === 'I' ? [-(2 ** (bits - 1)), 2 ** (bits - 1)] : [0, 2 ** bits];
}

const integerData = fc.constantFrom(...integers.map(([dtype]) => dtype)).chain(dtype => {
  const [low, high] = rangeOf(dtype);
  const [min, max] = [Math.max(low, Number.MIN_SAFE_INTEGER), Math.min(high - 1, Number.MAX_SAFE_INTEGER)];
  const fitting = fc.oneof(
    fc.integer({ min, max }),
    fc.integer({ min: Math.max(min, -(2 ** 31)), max: Math.min(max, 2 ** 31 - 1) }),
  );
  const value = fc.oneof({ weight: 15, arbitrary: fitting }, { weight: 1, arbitrary: fc.maxSafeInteger() });
  return fc.record({ dtype: fc.constant(dtype), values: fc.array(value, { maxLength: 12 }) });
});

property(
  'integers keep their value, or the first that does not fit is refused',
  integerData,
  ({ dtype, values }, reach) => {
    const [low, high] = rangeOf(dtype);
    const misfit = values.findIndex(x => x < low || x >= high);
    if (misfit >= 0) {
      reach('a misfit');
      const message = new RegExp(`^"data\\[${misfit}\\]" expected an integer`);
      assert.throws(() => fromIntegers(values, [values.length], dtype), { name: 'RangeError', message });
      return;
    }
    const tensor = fromIntegers(values, [values.length], dtype);
    const large = values.findIndex(x => x !== (x | 0));
    if (large >= 0) {
      reach('beyond int32');
      const message = new RegExp(`^tensor "x"\\[${large}\\] expected .*, got ${values[large]}$`);
      assert.throws(() => toInt32(tensor, 'x'), { name: 'RangeError', message });
      return;
    }
    reach('int32');
    assert.deepEqual(toInt32(tensor, 'x'), Int32Array.from(values));
  },
  ['a misfit', 'beyond int32', 'int32'],
);

test('a value that does not fit is an error that names the tensor, the index and the value', () => {
  const largest = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 0, 0);
  const range = 'expected an integer from -2147483648 to 2147483647';
  assert.throws(() => toInt32({ dtype: 'I64', shape: [2], bytes: largest }, 'ids'), {
    name: 'RangeError',
    message: `tensor "ids"[1] ${range}, got 2147483648`,
  });
  const least = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 128);
  assert.throws(
    () => toInt32({ dtype: 'I64', shape: [1], bytes: least }, 'ids'),
    /\[0\] .*, got -9223372036854775808$/,
  );
  assert.throws(() => toInt32({ dtype: 'U64', shape: [1], bytes: least }, 'ids'), /\[0\] .*, got 9223372036854775808$/);
  assert.throws(
    () => toInt32({ dtype: 'U32', shape: [], bytes: Uint8Array.of(0, 0, 0, 128) }, 'ids'),
    /got 2147483648$/,
  );
  assert.throws(() => toInt32({ dtype: 'BOOL', shape: [2], bytes: Uint8Array.of(1, 2) }, 'mask'), {
    name: 'RangeError',
    message: 'tensor "mask"[1] expected an integer from 0 to 1, got 2',
  });
  for (const value of [256, -1, 0.5, NaN, Infinity]) {
    assert.throws(() => fromIntegers([0, value], [2], 'U8'), {
      name: 'RangeError',
      message: `"data[1]" expected an integer from 0 to 255, got ${value}`,
    });
  }
  assert.throws(
    () => fromIntegers([2 ** 53], [1], 'I64'),
    /"data\[0\]" expected .* to 9007199254740991, got 9007199254740992/,
  );
});

test('a dtype that does not convert is a TypeError that names the tensor', () => {
  const tensor = (dtype: Dtype) => ({ dtype, shape: [], bytes: new Uint8Array(8) });
  assert.throws(() => toFloat64(tensor('I64'), 'ids'), {
    name: 'TypeError',
    message: 'tensor "ids": "dtype" expected one of F64, F32, BF16, F16, got I64',
  });
  assert.throws(() => toInt32(tensor('F64'), 'x'), {
    name: 'TypeError',
    message: 'tensor "x": "dtype" expected one of U64, I64, U32, I32, U16, I16, I8, U8, BOOL, got F64',
  });
  assert.throws(() => toFloat64(tensor('C64'), 'x'), TypeError);
});

test('data that are not as long as the shape says are refused', () => {
  const expected = { name: 'RangeError', message: '"data" expected the values of shape [2, 3], got 5 of them' };
  assert.throws(() => fromFloat64([1, 2, 3, 4, 5], [2, 3], 'F32'), expected);
  assert.throws(() => fromIntegers([1, 2, 3, 4, 5], [2, 3], 'I64'), expected);
  assert.deepEqual(fromFloat64([], [0, 3], 'F16'), { dtype: 'F16', shape: [0, 3], bytes: new Uint8Array(0) });
  assert.deepEqual(fromIntegers([7], [], 'U8'), { dtype: 'U8', shape: [], bytes: Uint8Array.of(7) });
});
