/** The kernels of the language model, norm and attention, against float64 within their bounds, on a memory of poison. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Matrix, softmax } from 'xmoe';
import { attend, layerNorm } from 'xmoe/model';
import { assertSame, assertWithin } from './close.js';
import { attendScratchBytes, headCacheBytes, keysBytes, valuesBytes } from './internals.js';
import { type Kernels, loadKernels, NO_RELAXED, targets } from './kernels.js';
import { numbers, table } from './kernels-calls.js';
import { attendBound, normBound } from './model-bounds.js';
import { lay, memory, run } from './poison.js';
import { property } from './property.js';

/** Rows of d numbers around a centre, in rows of `gaps` numbers more. */
const norms = fc.record({
  rows: fc.integer({ min: 0, max: 5 }),
  d: fc.oneof({ weight: 12, arbitrary: fc.integer({ min: 1, max: 19 }) }, fc.integer({ min: 20, max: 600 })),
  gaps: fc.record({ x: fc.nat(3), add: fc.nat(3), out: fc.nat(3) }),
  centre: fc.constantFrom(0, 0, 1, -1000),
  eps: fc.constantFrom(1e-5, 1e-12, 1),
  adds: fc.boolean(),
  seed: fc.integer(),
  spread: fc.constantFrom(0, 20),
  gap: fc.nat(3),
  last: fc.nat(),
});
type Norm = typeof norms extends fc.Arbitrary<infer Call> ? Call : never;

/** A layer's attention: so many rows after `start` others, in a cache with room for more. */
const attentions = fc
  .record({
    headWidth: fc.oneof(
      { weight: 2, arbitrary: fc.integer({ min: 1, max: 19 }) },
      { weight: 1, arbitrary: fc.constantFrom(20, 24, 32, 33, 36, 40, 64, 72) },
    ),
    numHeads: fc.integer({ min: 1, max: 4 }),
    start: fc.oneof(
      { weight: 1, arbitrary: fc.constant(0) },
      { weight: 3, arbitrary: fc.integer({ min: 1, max: 40 }) },
      { weight: 1, arbitrary: fc.integer({ min: 41, max: 150 }) },
    ),
    rows: fc.oneof(
      { weight: 1, arbitrary: fc.constant(0) },
      { weight: 6, arbitrary: fc.integer({ min: 1, max: 13 }) },
      { weight: 1, arbitrary: fc.integer({ min: 14, max: 60 }) },
    ),
    room: fc.nat(10),
    gaps: fc.record({ qkv: fc.nat(3), out: fc.nat(3) }),
    cuts: fc.array(fc.nat(), { minLength: 1, maxLength: 4 }),
    seed: fc.integer(),
    spread: fc.constantFrom(0, 0, 3, 20),
    gap: fc.nat(3),
    last: fc.nat(),
  })
  .map(drawn => ({
    ...drawn,
    // As many heads as fit the memory.
    numHeads: Math.max(
      1,
      Math.min(drawn.numHeads, Math.floor(16_000 / (drawn.headWidth * (drawn.start + drawn.rows)))),
    ),
  }));
type Attention = typeof attentions extends fc.Arbitrary<infer Call> ? Call : never;

const places = [
  'no rows',
  'a tile and rows over',
  'one row',
  'from the start',
  '32 positions',
  '32 columns',
  'odd width',
];

function reachPlaces({ rows, start, headWidth }: Attention, reach: (place: string) => void): void {
  if (rows === 0) reach('no rows');
  if (rows > 4 && rows % 4 > 0) reach('a tile and rows over');
  if (rows === 1) reach('one row');
  if (start === 0) reach('from the start');
  if (start + rows > 32) reach('32 positions');
  if (headWidth >= 32) reach('32 columns');
  if (headWidth % 2 === 1) reach('odd width');
}

/** Hashes of what target simd makes of the same numbers everywhere: attention of two head widths, and a norm. */
const BITS_EVERYWHERE = [4253804259, 2817871291, 1148938174];

/** [n, stride] -> the first `cols` columns from `first` on. */
function cut(data: Float32Array, n: number, stride: number, first: number, cols: number): Float32Array {
  return table(n, cols, (i, c) => data[i * stride + first + c]);
}

function matrix(rows: number, cols: number, data: Float32Array): Matrix {
  return { rows, cols, data };
}

/** The words of columns from `cols` on, which nobody may write. */
function assertGaps(data: Float32Array, stride: number, cols: number, before: Float32Array): void {
  const [words, old] = [data, before].map(
    ({ buffer, byteOffset, length }) => new Uint32Array(buffer, byteOffset, length),
  );
  words.forEach((word, i) => {
    if (i % stride >= cols) assert.equal(word, old[i], `word ${i}, between rows, was written`);
  });
}

/** The kernel on one norm: what x and out are afterwards, in their strides, and what they were. */
function normed(kernels: Kernels, { rows: n, d, gaps, centre, eps, adds, seed, spread, gap, last }: Norm) {
  const draw = numbers(seed, spread);
  const [xStride, addStride, outStride] = [d + gaps.x, d + gaps.add, d + gaps.out];
  const at = lay({ xAndOut: n * (xStride + outStride), add: n * addStride, norm: 2 * d + 1 }, gap, last);
  const before = draw(n * (xStride + outStride)).map(value => value + centre);
  at.add.floats.set(draw(n * addStride));
  at.norm.floats.set([...draw(2 * d), eps]);
  const [add, norm] = [at.add.floats.slice(), at.norm.floats.slice()];
  const norms = { weight: norm.subarray(0, d), bias: norm.subarray(d, 2 * d) };
  const runRows = (first: number, count: number, onto: Float32Array) => {
    const [x, out] = [at.xAndOut.ptr + 4 * first * xStride, at.xAndOut.ptr + 4 * (n * xStride + first * outStride)];
    const addPtr = adds ? at.add.ptr + 4 * first * addStride : 0;
    const kernel = () => kernels.add_norm_f32(x, xStride, addPtr, addStride, at.norm.ptr, out, outStride, count, d);
    return run(kernel, at.xAndOut, onto);
  };
  return { before, add, norms, eps: norm[2 * d], xStride, addStride, outStride, run: runRows };
}

/** A layer's q, k and v side by side, and the kernels over them and a cache of poison. */
function attention(kernels: Kernels, call: Attention) {
  const { headWidth, numHeads, start, rows, room, gaps, seed, spread, gap, last } = call;
  const [n, d, context] = [start + rows, headWidth * numHeads, start + rows + room];
  const [stride, outStride] = [3 * d + gaps.qkv, d + gaps.out];
  const cacheLength = headCacheBytes(context, headWidth, numHeads) / 4;
  const at = lay(
    { qkv: n * stride, cache: cacheLength, scratch: attendScratchBytes(context) / 4, out: n * outStride },
    gap,
    last,
  );
  at.qkv.floats.set(numbers(seed, spread)(n * stride));
  const empty = at.cache.floats.slice();
  const nothing = at.out.floats.slice();
  const valuesPtr = at.cache.ptr + keysBytes(context, headWidth, numHeads);
  return {
    ...{ n, d, context, stride, outStride, at, empty, nothing },
    /** The cache with rows [first, first + count) in it, in some heads. */
    store(first: number, count: number, onto: Float32Array, firstHead = 0, lastHead = numHeads): Float32Array {
      const k = at.qkv.ptr + 4 * (first * stride + d);
      const store = () =>
        kernels.store_heads_f32(
          ...([k, k + 4 * d, stride, at.cache.ptr, valuesPtr, context, first, count] as const),
          ...([headWidth, firstHead, lastHead] as const),
        );
      return run(store, at.cache, onto);
    },
    /** Rows [first, first + count) of out, in their places. */
    attend(
      first: number,
      count: number,
      cache: Float32Array,
      onto: Float32Array = nothing,
      firstHead = 0,
      lastHead = numHeads,
    ) {
      at.cache.floats.set(cache);
      const [q, out] = [at.qkv.ptr + 4 * first * stride, at.out.ptr + 4 * first * outStride];
      const attend = () =>
        kernels.attend_f32(
          ...([q, stride, at.cache.ptr, valuesPtr, context, out, outStride, first, count] as const),
          ...([headWidth, firstHead, lastHead, at.scratch.ptr] as const),
        );
      return run(attend, at.out, onto, at.scratch);
    },
  };
}

test('simd: norm and attention have the bits that they have on every machine', () => {
  const kernels = loadKernels('simd', memory)!;
  const drawn = { seed: 7, spread: 0 as const, gap: 1, last: 0, cuts: [0] };
  const common = { ...drawn, rows: 22, start: 30, room: 3, gaps: { qkv: 0, out: 0 } };
  const attended = [19, 40].map(headWidth => {
    const { n, empty, store, attend } = attention(kernels, { ...common, headWidth, numHeads: 3 });
    return hashOf(attend(30, 22, store(0, n, empty)));
  });
  const gaps = { x: 0, add: 0, out: 0 };
  const normal = normed(kernels, { ...drawn, rows: 5, d: 301, gaps, centre: 1, eps: 1e-5, adds: true });
  assert.deepEqual([...attended, hashOf(normal.run(0, 5, normal.before))], BITS_EVERYWHERE);
});

for (const target of targets) {
  const kernels = loadKernels(target, memory);
  if (kernels === undefined) {
    test(`${target}: the kernels of the language model`, { skip: NO_RELAXED });
    continue;
  }

  property(
    `${target}: add_norm_f32 adds, and is within its bound of layerNorm, row by row`,
    norms,
    (call, reach) => {
      const { rows: n, d, adds } = call;
      const { before, add, norms, eps, xStride, addStride, outStride, run } = normed(kernels, call);
      const after = run(0, n, before);
      const [x, out] = [after.subarray(0, n * xStride), after.subarray(n * xStride)];
      const expectedX = table(n, d, (i, c) => before[i * xStride + c] + (adds ? add[i * addStride + c] : 0));
      assertSame(cut(x, n, xStride, 0, d), expectedX, 'x');
      const y = layerNorm(matrix(n, d, expectedX), norms, eps);
      for (let i = 0; i < n; i++) {
        const bound = normBound(expectedX.subarray(i * d, (i + 1) * d), norms.weight, eps);
        for (let c = 0; c < d; c++) {
          const exact = y.data[i * d + c];
          assertWithin(out[i * outStride + c], exact, bound(c, exact), `out[${i}, ${c}]`);
        }
      }
      assertGaps(x, xStride, d, before.subarray(0, n * xStride));
      assertGaps(out, outStride, d, before.subarray(n * xStride));
      let byRows: Float32Array = before;
      for (let i = 0; i < n; i++) byRows = run(i, 1, byRows);
      assertSame(byRows, after, 'row by row', true);
      reach(adds ? 'something to add' : 'nothing to add');
      if (n === 0) reach('no rows');
      if (d === 1) reach('one column');
      if (d % 8 === 0) reach('whole eights');
    },
    ['something to add', 'nothing to add', 'no rows', 'one column', 'whole eights'],
  );

  property(`${target}: store_heads_f32 puts each key and value in its place, and nothing else`, attentions, call => {
    const { headWidth, numHeads } = call;
    const { n, d, context, stride, at, empty, store } = attention(kernels, call);
    const first = call.cuts[0] % (n + 1);
    const cache = store(first, n - first, empty);
    const expected = empty.slice();
    const head = keysBytes(context, headWidth) / 4;
    const ofValues = valuesBytes(context, headWidth) / 4;
    for (let i = first; i < n; i++) {
      for (let h = 0; h < numHeads; h++) {
        for (let c = 0; c < headWidth; c++) {
          const from = i * stride + d + h * headWidth + c;
          const [ofPosition, ofColumn] = [i, c].map(index => Math.floor(index / 8));
          const key = h * head + (ofPosition * headWidth + c) * 8 + (i % 8);
          const value = numHeads * head + h * ofValues + (ofColumn * context + i) * 8 + (c % 8);
          [expected[key], expected[value]] = [at.qkv.floats[from], at.qkv.floats[from + d]];
        }
      }
    }
    const [words, expectedWords] = [cache, expected].map(({ buffer }) => new Uint32Array(buffer));
    assertSame(words, expectedWords, 'cache');
    const middle = call.cuts[0] % (numHeads + 1);
    const inParts = store(first, n - first, store(first, n - first, empty, middle), 0, middle);
    assertSame(new Uint32Array(inParts.buffer), words, 'some heads after others');
  });

  property(
    `${target}: attend_f32 is within its bound of attend, and sees no later position`,
    attentions,
    (call, reach) => {
      const { headWidth, numHeads, start, rows } = call;
      const { n, d, stride, outStride, at, empty, nothing, store, attend: attendRows } = attention(kernels, call);
      const out = attendRows(start, rows, store(0, n, empty));
      const [q, k, v] = [0, 1, 2].map(part => cut(at.qkv.floats, n, stride, part * d, d));
      const y = attend(matrix(rows, d, q.subarray(start * d)), matrix(n, d, k), matrix(n, d, v), numHeads);
      for (let i = 0; i < rows; i++) {
        const seen = Array.from({ length: start + i + 1 }, (_, j) => j);
        for (let h = 0; h < numHeads; h++) {
          const part = (data: Float32Array, row: number) =>
            data.subarray(row * d + h * headWidth).subarray(0, headWidth);
          const ofHead = (data: Float32Array) => seen.map(j => part(data, j));
          const bound = attendBound(part(q, start + i), ofHead(k), ofHead(v));
          for (let c = 0; c < headWidth; c++) {
            const column = h * headWidth + c;
            const actual = out[(start + i) * outStride + column];
            assertWithin(actual, y.data[i * d + column], bound(c), `out[${start + i}, ${column}]`);
          }
        }
      }
      assertGaps(out, outStride, d, nothing);
      assertSame(
        words(out).subarray(0, start * outStride),
        words(nothing).subarray(0, start * outStride),
        'rows before',
      );
      reachPlaces(call, reach);
    },
    places,
  );

  test(`${target}: attend_f32 takes what is not finite to the rows that see it, on its head, and to no other`, () => {
    const [rows, headWidth] = [11, 12];
    const drawn = { seed: 3, spread: 0 as const, gap: 1, last: 1, cuts: [0] };
    const call = { ...drawn, rows, headWidth, numHeads: 2, start: 0, room: 2, gaps: { qkv: 0, out: 0 } };
    const { d, stride, at, empty, store, attend } = attention(kernels, call);
    const before = attend(0, rows, store(0, rows, empty));
    const [ofKeys, ofValues] = [d, 2 * d];
    for (const part of [ofKeys, ofValues]) {
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
        for (let hostile = 0; hostile < rows; hostile++) {
          const column = at.qkv.floats.subarray(hostile * stride + part).subarray(0, headWidth);
          const kept = column.slice();
          column.fill(value);
          const out = attend(0, rows, store(0, rows, empty));
          column.set(kept);
          out.forEach((actual, i) => {
            const sees = Math.floor(i / d) >= hostile && i % d < headWidth;
            const isRight = sees ? !Number.isFinite(actual) : Object.is(actual, before[i]);
            assert.ok(
              isRight,
              `${value} in row ${hostile} of part ${part}: got ${actual} at ${i}, before it ${before[i]}`,
            );
          });
        }
      }
    }
  });

  property(
    `${target}: attend_f32 weighs the values with their softmax, within 7.2 roundings where products are exact`,
    fc.record({
      products: fc.array(fc.integer({ min: -(2 ** 16), max: 2 ** 16 }), { minLength: 16, maxLength: 16 }),
      spread: fc.constantFrom(2 ** -17, 2 ** -14, 2 ** -11, 2 ** -10),
    }),
    ({ products, spread }, reach) => {
      // One head of 16 columns, so that 1 / √16 is exact. In column 0: q = 4, and keys; value j is 1 in column j, else 0.
      const [n, d] = [16, 16];
      const at = lay({ q: d, keys: n * d, values: n * d, scratch: 4 * n, out: d }, 0, 0);
      for (const { floats } of [at.q, at.keys, at.values]) floats.fill(0);
      at.q.floats[0] = 4;
      products.forEach((product, j) => {
        at.keys.floats[Math.floor(j / 8) * 8 * d + (j % 8)] = product * spread;
        at.values.floats[(Math.floor(j / 8) * n + j) * 8 + (j % 8)] = 1;
      });
      for (const seen of [n, products[0] & 15 || 1]) {
        const out = run(
          () =>
            kernels.attend_f32(
              at.q.ptr,
              d,
              at.keys.ptr,
              at.values.ptr,
              n,
              at.out.ptr,
              d,
              seen - 1,
              1,
              d,
              0,
              1,
              at.scratch.ptr,
            ),
          at.out,
          undefined,
          at.scratch,
        );
        const data = Float64Array.from(products.slice(0, seen), product => product * spread);
        const probs = softmax({ rows: 1, cols: seen, data }).data;
        for (let j = 0; j < n; j++) {
          const p = j < seen ? probs[j] : 0;
          assertWithin(out[j], p, 7.2 * 2 ** -24 * p + 2 ** -148, `p[${j}] of ${seen}`);
          if (p < 2 ** -149 && j < seen) reach('p below float32');
        }
        if (seen === 1) reach('one position');
      }
    },
    ['p below float32', 'one position'],
  );

  property(
    `${target}: attend_f32 gives the same bits for any rows, heads and batches, whatever comes later`,
    attentions,
    (call, reach) => {
      const { numHeads, start, rows, cuts } = call;
      const { n, empty, nothing, store, attend } = attention(kernels, call);
      const full = store(0, n, empty);
      const all = words(attend(start, rows, full));
      let byRows: Float32Array = nothing;
      for (let i = start; i < n; i++) byRows = attend(i, 1, full, byRows);
      assertSame(words(byRows), all, 'row by row');

      // As streams are read: batches after batches, before the rows after them are in the cache.
      let cache = store(0, start, empty);
      let inBatches: Float32Array = nothing;
      const middle = cuts[0] % (numHeads + 1);
      const ends = [...cuts.map(end => start + (end % (rows + 1))), n].sort((a, b) => a - b);
      for (let [i, first] = [0, start]; i < ends.length; first = ends[i], i++) {
        const count = ends[i] - first;
        cache = store(first, count, cache);
        inBatches = attend(first, count, cache, inBatches, middle, numHeads);
        inBatches = attend(first, count, cache, inBatches, 0, middle);
      }
      assertSame(words(inBatches), all, 'in batches, some heads after others');
      reachPlaces(call, reach);
    },
    places,
  );
}

function words({ buffer, byteOffset, length }: Float32Array): Uint32Array {
  return new Uint32Array(buffer, byteOffset, length);
}

function hashOf(data: Float32Array): number {
  return words(data).reduce((h, word) => Math.imul(h ^ word, 0x01000193) >>> 0, 0x811c9dc5);
}
