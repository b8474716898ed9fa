/** The float32 activations, sigmoid and softmax of the kernels against float64, on a memory of poison. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { activations, sigmoid, softmax } from 'xmoe';
import { type Kernels, loadKernels, memoryOf, targets } from './kernels.js';
import { property } from './property.js';

/** A NaN of its own bits: a result that hangs on it is NaN, a store onto it is seen. */
const POISON = 0x7fc0dead;

const memory = memoryOf(1 << 21);
const words = new Uint32Array(memory.buffer);
const floats = new Float32Array(memory.buffer);

/** A function of one number, and the error that its doc comment promises, in ulp. */
interface Subject {
  readonly name: string;
  run(kernels: Kernels, fromPtr: number, toPtr: number, n: number): void;
  exact(h: number): number;
  readonly allowed: number;
}

const names = ['relu', 'gelu', 'gelu_tanh', 'silu'] as const;
const subjects: Subject[] = [
  ...names.map((name, id) => ({
    name,
    run: (kernels: Kernels, fromPtr: number, toPtr: number, n: number) => kernels.activate_f32(fromPtr, toPtr, n, id),
    exact: activations[name].apply,
    allowed: [0, 6, 3.5, 3.5][id],
  })),
  {
    name: 'sigmoid',
    run: (kernels, fromPtr, toPtr, n) => kernels.sigmoid_f32(fromPtr, toPtr, n),
    exact: sigmoid,
    allowed: 2.5,
  },
];

/** The values of `inputs` alone in a poisoned memory, `offset` words before its end. Returns a copy. */
function apply(subject: Subject, kernels: Kernels, inputs: Float32Array, offset = 0, inPlace = false): Float32Array {
  const n = inputs.length;
  words.fill(POISON, floats.length - 2 * n - 64);
  const from = floats.length - offset - n;
  const to = inPlace ? from : from - n - 8;
  floats.set(inputs, from);
  subject.run(kernels, 4 * from, 4 * to, n);
  const outputs = floats.slice(to, to + n);
  words.fill(POISON, to, to + n);
  if (!inPlace) assert.deepEqual(floats.subarray(from, from + n), inputs, 'an input was written');
  words.fill(POISON, from, from + n);
  const stray = words.subarray(-2 * n - 64).findIndex(word => word !== POISON);
  assert.equal(stray, -1, 'a store past the output');
  return outputs;
}

/** One ulp of float32 at `value`: the distance of neighbours in its binade. */
function ulp(value: number): number {
  return 2 ** (Math.max(-126, Math.floor(Math.log2(Math.abs(value)))) - 23);
}

/** How far the largest error is into what is allowed: the bound in ulp for normal results, 2.5 · 2^-149 for tiny ones. */
function worst({ exact, allowed }: Subject, inputs: Float32Array, outputs: Float32Array): [number, number] {
  let [share, at] = [0, 0];
  inputs.forEach((h, i) => {
    const expected = exact(h);
    const tiny = Math.abs(expected) < 2 ** -126;
    const difference = Math.abs(outputs[i] - expected);
    const error = difference === 0 ? 0 : difference / ulp(expected) / (tiny ? 2.5 : allowed);
    if (!(error <= share)) [share, at] = [error, h];
  });
  return [share, at];
}

/** Finite floats of every exponent and both signs, evenly in their bits; then evenly in value where σ is curved. */
function sweep(): Float32Array {
  const bits = Uint32Array.from({ length: 130_000 }, (_, i) => (i * 33_029) >>> 0);
  const everywhere = new Float32Array(bits.buffer).filter(Number.isFinite);
  const near = Float32Array.from({ length: 100_000 }, (_, i) => (i - 50_000) / 2713);
  const far = Float32Array.from({ length: 20_000 }, (_, i) => (i - 10_000) / 89);
  const all = new Float32Array(everywhere.length + near.length + far.length);
  all.set(everywhere);
  all.set(near, everywhere.length);
  all.set(far, everywhere.length + near.length);
  return all;
}

const MAX = 2 ** 128 - 2 ** 104;
const tiny = [2 ** -149, 2 ** -140, 2 ** -126 - 2 ** -149, 2 ** -126, 2 ** -125, 2 ** -64, 2 ** -24, 2 ** -12];
const borders = [0.5, 1, 10.2, 10.6, 11, 13.2, 14.2, 14.5, 87.3, 88.7, 91.9, 103.9, 104, 110, 1e4, 1e19, 2 ** 127, MAX];
const hostile = [0, ...tiny, ...borders].flatMap(h => [h, -h]);

const finite = fc
  .oneof(
    fc.constantFrom(...hostile),
    fc.float({ noNaN: true, noDefaultInfinity: true }),
    fc.integer({ min: -(2 ** 24), max: 2 ** 24 }).map(i => i / 2 ** 20),
  )
  .map(Math.fround);

/** softmax_f32 of logits [T, E] alone in a poisoned memory, at its end. */
function softmaxOf(kernels: Kernels, logits: readonly number[], numExperts: number, inPlace = false): Float32Array {
  const subject: Subject = {
    name: 'softmax',
    run: (k, fromPtr, toPtr, n) => k.softmax_f32(fromPtr, toPtr, n / numExperts, numExperts),
    exact: Number,
    allowed: 0,
  };
  return apply(subject, kernels, Float32Array.from(logits), 0, inPlace);
}

/** Rows of logits: E, how far apart they are, and around what. */
const rows = fc
  .record({
    numExperts: fc.oneof(
      { weight: 19, arbitrary: fc.integer({ min: 1, max: 19 }) },
      { weight: 1, arbitrary: fc.integer({ min: 20, max: 600 }) },
    ),
    numTokens: fc.integer({ min: 1, max: 4 }),
    spread: fc.constantFrom(2 ** -20, 0.1, 1, 8, 60, 130, 1e4, 3e38),
    centre: fc.constantFrom(0, 0, -1000, 1000, 3.7, -1e-3),
  })
  .chain(({ numExperts, numTokens, spread, centre }) =>
    fc.record({
      numExperts: fc.constant(numExperts),
      logits: fc.array(
        fc.integer({ min: -(2 ** 24), max: 2 ** 24 }).map(i => Math.fround(centre + (i / 2 ** 24) * spread)),
        { minLength: numTokens * numExperts, maxLength: numTokens * numExperts },
      ),
    }),
  );

/** FNV-1a over the bits of what a function makes of the sweep in target simd, as one machine gave them: x64, Node 20. */
const bitsEverywhere: Record<string, number> = {
  relu: 395633824,
  gelu: 3964250069,
  gelu_tanh: 611633498,
  silu: 3941806126,
  sigmoid: 3979934552,
};

for (const subject of subjects) {
  test(`simd: ${subject.name} has the bits that it has on every machine`, () => {
    const outputs = apply(subject, loadKernels('simd', memory)!, sweep());
    const hash = new Uint32Array(outputs.buffer).reduce((h, word) => Math.imul(h ^ word, 0x01000193) >>> 0, 0x811c9dc5);
    assert.equal(hash, bitsEverywhere[subject.name]);
  });
}

for (const target of targets) {
  const kernels = loadKernels(target, memory);
  if (kernels === undefined) {
    const skip = 'this engine has no relaxed SIMD; Node 20 has it with --experimental-wasm-relaxed-simd';
    test(`${target}: the elementary functions are within their ulps of float64`, { skip });
    continue;
  }

  for (const subject of subjects) {
    const { name, exact } = subject;
    test(`E3 ${target}: ${name} is within its ulps of float64 for floats of every size`, t => {
      const inputs = sweep();
      const outputs = apply(subject, kernels, inputs);
      const [share, at] = worst(subject, inputs, outputs);
      t.diagnostic(`${inputs.length} floats; largest error ${share.toFixed(2)} of what is allowed, at ${at}`);
      assert.ok(share <= 1, `${share} of what is allowed, at ${at}`);
    });

    test(`E3 ${target}: ${name} is finite for finite arguments, and NaN for NaN`, () => {
      const inputs = Float32Array.from([...hostile, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN]);
      const outputs = [...apply(subject, kernels, inputs)];
      const isSigmoid = name === 'sigmoid';
      assert.deepEqual(outputs.slice(-3), [isSigmoid ? 1 : Number.POSITIVE_INFINITY, 0, Number.NaN]);
      const [share, at] = worst(subject, inputs.subarray(0, -3), Float32Array.from(outputs));
      assert.ok(share <= 1, `${share} of what is allowed, at ${at}`);
      inputs.subarray(0, -3).forEach((h, i) => {
        assert.ok(Number.isFinite(outputs[i]), `${h} gives ${outputs[i]}`);
        if (h >= 128) assert.equal(outputs[i], isSigmoid ? 1 : h, `at ${h}`);
        if (h <= -128) assert.ok(outputs[i] === 0, `at ${h}`);
        if (h === 0) assert.ok(outputs[i] === exact(h), `at ${h}`);
      });
    });

    property(
      `${target}: ${name} gives an element the same bits alone, in place, and again, and touches no other`,
      fc.record({ inputs: fc.array(finite, { maxLength: 40 }), offset: fc.nat({ max: 8 }) }),
      ({ inputs, offset }, reach) => {
        const h = Float32Array.from(inputs);
        const outputs = apply(subject, kernels, h, offset);
        assert.deepEqual(apply(subject, kernels, h, offset), outputs, 'again');
        assert.deepEqual(apply(subject, kernels, h, offset, true), outputs, 'in place');
        h.forEach((_, i) => {
          assert.deepEqual(apply(subject, kernels, h.subarray(i, i + 1)), outputs.subarray(i, i + 1), `alone: ${i}`);
        });
        if (h.length === 0) reach('empty');
        reach(`n mod 8 = ${h.length % 8}`);
      },
      ['empty', ...Array.from({ length: 8 }, (_, tail) => `n mod 8 = ${tail}`)],
      { examples: Array.from({ length: 20 }, (_, n) => ({ inputs: hostile.slice(0, n), offset: 0 })) },
    );
  }

  test(`R2 ${target}: softmax_f32 of rule R2's examples`, () => {
    assert.deepEqual([...softmaxOf(kernels, [-1000, -1000], 2)], [0.5, 0.5]);
    assert.deepEqual([...softmaxOf(kernels, [0, -1000], 2)], [1, 0]);
    const [quarter, threeQuarters] = softmaxOf(kernels, [0, Math.log(3)], 2);
    assert.ok(Math.abs(quarter - 0.25) <= 2 ** -24 && Math.abs(threeQuarters - 0.75) <= 2 ** -23);
  });

  test(`R2 ${target}: equal logits have exactly 1/E, rounded once`, () => {
    for (let numExperts = 1; numExperts <= 1024; numExperts += numExperts < 40 ? 1 : 41) {
      for (const logit of [0, -1000, 3e38, -0.1]) {
        const probs = softmaxOf(kernels, new Array(numExperts).fill(logit), numExperts);
        assert.ok(
          probs.every(p => p === Math.fround(1 / numExperts)),
          `E = ${numExperts}, logits ${logit}`,
        );
      }
    }
    for (const numExperts of [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]) {
      const probs = softmaxOf(kernels, new Array(numExperts).fill(-7.3), numExperts);
      assert.ok(
        probs.every(p => p * numExperts === 1),
        `E = ${numExperts}`,
      );
    }
  });

  test(`R2 ${target}: logits at both ends of float32 have p = 1 and p = 0; -Infinity has 0; NaN makes its row NaN`, () => {
    assert.deepEqual([...softmaxOf(kernels, [MAX, -MAX, -MAX, 0, -MAX], 5)], [1, 0, 0, 0, 0]);
    assert.deepEqual([...softmaxOf(kernels, [1, Number.NEGATIVE_INFINITY], 2)], [1, 0]);
    const row = [0, 1, 2, 3, 4, 5, 6];
    for (const at of row) {
      const probs = softmaxOf(kernels, [...row, ...row.map((z, e) => (e === at ? Number.NaN : z))], 7);
      assert.ok(
        probs.every((p, i) => Number.isNaN(p) === i >= 7),
        `NaN at ${at}`,
      );
    }
  });

  property(
    `R2 ${target}: softmax_f32 is within its bound of float64, for a row alone too, in place, and again`,
    rows,
    ({ numExperts, logits }, reach) => {
      const probs = softmaxOf(kernels, logits, numExperts);
      const numTokens = logits.length / numExperts;
      const exact = softmax({ rows: numTokens, cols: numExperts, data: Float64Array.from(logits) }).data;
      probs.forEach((p, i) => {
        const bound = 6 * 2 ** -24 * exact[i] + 2 ** -148;
        if (!(Math.abs(p - exact[i]) <= bound)) assert.fail(`p[${i}] expected ${exact[i]}, got ${p}`);
        if (exact[i] < 2 ** -150) reach('p = 0');
        else if (exact[i] < 2 ** -126) reach('subnormal p');
        else if (exact[i] < 2 ** -60) reach('small p');
      });
      assert.deepEqual(softmaxOf(kernels, logits, numExperts), probs, 'again');
      assert.deepEqual(softmaxOf(kernels, logits, numExperts, true), probs, 'in place');
      const row = logits.slice(-numExperts);
      assert.deepEqual(softmaxOf(kernels, row, numExperts), probs.slice(-numExperts), 'the last row alone');
      reach(`E mod 4 = ${numExperts % 4}`);
      if (numExperts > 19) reach('large E');
      if (Math.max(...logits) < 0) reach('all negative');
    },
    ['p = 0', 'subnormal p', 'small p', 'large E', 'all negative', ...[0, 1, 2, 3].map(tail => `E mod 4 = ${tail}`)],
  );
}
