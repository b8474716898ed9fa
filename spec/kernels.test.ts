/** The kernels against float64 loops, on a memory where every byte that is neither input nor output is poison. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Kernels, loadKernels, memoryOf, targets } from './kernels.js';
import { property } from './property.js';

/** A NaN of its own bits: a sum that reads it is NaN, a store onto it is seen. */
const POISON = 0x7fc0dead;

/** One call of linear_f32 and where its arrays lie: one ends the memory, so that a read past its end traps. */
interface Call {
  readonly n: number;
  readonly m: number;
  readonly k: number;
  readonly withBias: boolean;
  readonly last: Region;
  /** Elements between one array and the next, above four: they move an array against 16 bytes. */
  readonly gap: number;
}

const regions = ['x', 'w', 'bias', 'y'] as const;
type Region = (typeof regions)[number];

const memory = memoryOf(65536);
const words = new Uint32Array(memory.buffer);
const floats = new Float32Array(memory.buffer);

/** Poison the memory, lay the arrays of `call` from its end downwards, and fill the inputs with `next`. */
function lay({ n, m, k, withBias, last, gap }: Call, next: () => number) {
  const sizes = { x: n * k, w: m * k, bias: withBias ? m : 0, y: n * m };
  const offsets = { x: 0, w: 0, bias: 0, y: 0 };
  let end = floats.length;
  for (const region of [last, ...regions.filter(other => other !== last)]) {
    offsets[region] = end - sizes[region];
    end = offsets[region] - 4 - gap;
  }
  words.fill(POISON);
  const view = (region: Region) => floats.subarray(offsets[region], offsets[region] + sizes[region]);
  const [x, w, bias, y] = regions.map(view);
  for (const input of [x, w, bias]) for (let i = 0; i < input.length; i++) input[i] = next();
  const pointers = { x: 4 * offsets.x, w: 4 * offsets.w, bias: withBias ? 4 * offsets.bias : 0, y: 4 * offsets.y };
  return { pointers, x, w, bias, y };
}

type Laid = ReturnType<typeof lay>;

/** Run the kernel; a copy of y. Every byte outside y must be as it was. */
function run(kernels: Kernels, { n, m, k }: Call, { pointers, y }: Laid): Float32Array {
  const poisonY = () => words.fill(POISON, pointers.y / 4, pointers.y / 4 + n * m);
  poisonY();
  const before = words.slice();
  kernels.linear_f32(pointers.x, pointers.w, pointers.bias, pointers.y, n, m, k);
  const written = y.slice();
  poisonY();
  assert.deepEqual(words, before, 'memory outside y');
  return written;
}

/** y[i, j] in float64, and the same sum of absolute values, each at least `floor`. */
function exact({ m, k }: Call, { x, w, bias }: Laid, at: number, floor: number): [value: number, scale: number] {
  const [i, j] = [Math.floor(at / m), at % m];
  let [value, scale] = bias.length > 0 ? [bias[j], Math.abs(bias[j])] : [0, 0];
  for (let l = 0; l < k; l++) {
    const [a, b] = [x[i * k + l], w[j * k + l]];
    value += a * b;
    scale += Math.max(Math.abs(a), floor) * Math.max(Math.abs(b), floor);
  }
  return [value, scale];
}

/** Uniform in [-1, 1) times 2^-spread … 2^spread; one in sixteen is 0, one in sixteen so small that products underflow. */
function numbers(seed: number, spread: number): () => number {
  let state = seed | 1;
  const draw = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  return () => {
    const kind = draw() % 16;
    const exponent = kind === 1 ? -70 : (draw() % (2 * spread + 1)) - spread;
    return kind === 0 ? 0 : (draw() / 2 ** 31 - 1) * 2 ** exponent;
  };
}

// Most widths see every tail and a few full tiles; 0 is legal; the larger ones run the main loops for longer.
const width = fc.oneof(
  { weight: 2, arbitrary: fc.constant(0) },
  { weight: 11, arbitrary: fc.integer({ min: 1, max: 19 }) },
  { weight: 3, arbitrary: fc.integer({ min: 20, max: 64 }) },
);
const calls = fc.record({
  n: width,
  m: width,
  k: width,
  withBias: fc.boolean(),
  last: fc.constantFrom(...regions),
  gap: fc.nat(3),
  seed: fc.integer(),
  spread: fc.constantFrom(0, 20),
});
const places = ['n = 0', 'm = 0', 'k = 0', 'k mod 4', 'm mod 4', 'odd n', 'large', 'bias', 'off 16 bytes'];

for (const target of targets) {
  const kernels = loadKernels(target, memory);
  if (kernels === undefined) {
    const skip = 'this engine has no relaxed SIMD; Node 20 has it with --experimental-wasm-relaxed-simd';
    test(`${target}: linear_f32 is within its bound of float64`, { skip });
    continue;
  }

  test(`${target}: the module exports its kernels alone`, () => {
    assert.deepEqual(Object.keys(kernels).sort(), ['activate_f32', 'linear_f32', 'sigmoid_f32', 'softmax_f32']);
  });

  test(`${target}: linear_f32 is exact on small integers, all widths 0 to 19`, () => {
    let count = 0;
    const integer = () => ((count++ * 7) % 17) - 8;
    for (let n = 0; n < 20; n++) {
      for (let m = 0; m < 20; m++) {
        for (let k = 0; k < 20; k++) {
          const at = n + m + k;
          const call = { n, m, k, withBias: at % 3 > 0, last: regions[at % 4], gap: (at >> 2) % 4 };
          const laid = lay(call, integer);
          const y = run(kernels, call, laid);
          for (let i = 0; i < n * m; i++) {
            const expected = exact(call, laid, i, 0)[0];
            if (y[i] !== expected) assert.fail(`${JSON.stringify(call)}: y[${i}] expected ${expected}, got ${y[i]}`);
          }
        }
      }
    }
  });

  property(
    `${target}: linear_f32 is within its bound of float64`,
    calls,
    ({ seed, spread, ...call }, reach) => {
      const { n, m, k } = call;
      const laid = lay(call, numbers(seed, spread));
      const y = run(kernels, call, laid);
      for (let i = 0; i < n * m; i++) {
        const [expected, scale] = exact(call, laid, i, 2 ** -60);
        const error = Math.abs(y[i] - expected);
        if (!(error <= (k + 2) * 2 ** -24 * scale)) assert.fail(`y[${i}] expected ${expected}, got ${y[i]}`);
      }
      if (n === 0) reach('n = 0');
      if (m === 0) reach('m = 0');
      if (k === 0) reach('k = 0');
      if (k % 4 > 0) reach('k mod 4');
      if (m % 4 > 0) reach('m mod 4');
      if (n % 2 > 0) reach('odd n');
      if (Math.max(n, m, k) > 19) reach('large');
      if (call.withBias) reach('bias');
      if (Object.values(laid.pointers).some(pointer => pointer % 16 > 0)) reach('off 16 bytes');
    },
    places,
  );

  property(
    `${target}: linear_f32 gives the same bits again, and for each element alone`,
    calls,
    ({ seed, spread, ...call }) => {
      const laid = lay(call, numbers(seed, spread));
      const { n, m, k } = call;
      const y = run(kernels, call, laid);
      assert.deepEqual(run(kernels, call, laid), y, 'again');
      const at = laid.pointers;
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < m; j++) {
          kernels.linear_f32(
            at.x + 4 * i * k,
            at.w + 4 * j * k,
            at.bias && at.bias + 4 * j,
            at.y + 4 * (i * m + j),
            1,
            1,
            k,
          );
        }
      }
      assert.deepEqual(laid.y, y, 'alone');
    },
    [],
    { share: 0.5 },
  );
}

test('simd: linear_f32 adds in the documented order, on every machine', () => {
  const kernels = loadKernels('simd', memory)!;
  const round = Math.fround;
  for (let k = 0; k < 40; k++) {
    const call: Call = { n: 3, m: 5, k, withBias: true, last: 'y', gap: 0 };
    const laid = lay(call, numbers(k, 4));
    const y = run(kernels, call, laid);
    for (let at = 0; at < y.length; at++) {
      const [i, j] = [Math.floor(at / 5), at % 5];
      const product = (l: number) => round(laid.x[i * k + l] * laid.w[j * k + l]);
      const s = [0, 0, 0, 0];
      for (let l = 0; l < k - (k % 4); l++) s[l % 4] = round(s[l % 4] + product(l));
      let sum = round(round(s[0] + s[1]) + round(s[2] + s[3]));
      for (let l = k - (k % 4); l < k; l++) sum = round(sum + product(l));
      assert.equal(y[at], round(sum + laid.bias[j]), `k = ${k}, y[${at}]`);
    }
  }
});
