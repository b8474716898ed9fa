/** erf and erfc, the activations and their derivatives, against power series in BigInt fixed point (exact.ts). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ActivationName, activations, erf, erfc, sigmoid } from 'xmoe';
import { type FixedPoint, fixedPoint, magnitude } from './exact.js';
import { property } from './property.js';

test('erf and erfc have their published values', () => {
  const published: [(x: number) => number, number, number][] = [
    [erf, 0.5, 0.5204998778130465],
    [erf, 1, 0.8427007929497149],
    [erf, 2, 0.9953222650189527],
    [erfc, -1, 1.842700792949715],
    [erfc, 1, 0.15729920705028513],
    [erfc, 2, 0.004677734981047266],
    [erfc, 3, 2.209049699858544e-5],
    [erfc, 5, 1.537459794428035e-12],
    [erfc, 10, 2.088487583762545e-45],
  ];
  for (const [f, x, value] of published) {
    assert.ok(Math.abs(f(x) - value) <= 1e-15 * value, `${f.name}(${x}): ${f(x)}, not ${value}`);
  }
});

test('erf and erfc are exact at 0, far out and at infinity', () => {
  for (const x of [6, 27.5, 1e10, 1e200, Number.MAX_VALUE, Number.POSITIVE_INFINITY]) {
    assert.deepEqual([erf(x), erf(-x), erfc(-x)], [1, -1, 2]);
    assert.equal(erfc(x) === 0, x > 27);
  }
  assert.deepEqual([erf(0), erf(-0), erfc(0)], [0, -0, 1]);
  assert.ok(Number.isNaN(erf(Number.NaN)) && Number.isNaN(erfc(Number.NaN)));
});

/** A float64 function, what it stands for, and how far it may be off. */
interface Subject {
  readonly name: string;
  readonly compute: (x: number) => number;
  readonly exact: (F: FixedPoint, x: bigint) => bigint;
  /** The logarithm of the largest and the smallest number on the way (exact.ts). */
  readonly size: (x: number) => number;
  /** The promise of its doc comment, in ulp. */
  readonly allowed: (x: number) => number;
  /** Where the formula changes. */
  readonly seams: readonly number[];
  /** Where the result is tiny, as far as `allowed` promises anything. */
  readonly tail: readonly [number, number];
}

const logistic = (F: FixedPoint, z: bigint) => F.div(F.of(1), F.of(1) + F.exp(-z));
const [rootTwoOverPi, cubic] = [0.7978845608028654, 0.044715];
const twoU = (h: number) => 2 * rootTwoOverPi * (h + cubic * h ** 3);

function tanhForm(F: FixedPoint, h: bigint): bigint {
  const cube = F.mul(h, F.mul(h, h));
  const e2u = F.exp(2n * F.mul(F.of(rootTwoOverPi), h + F.mul(F.of(cubic), cube)));
  const tanh = F.div(e2u - F.of(1), e2u + F.of(1));
  return F.mul(h, F.of(1) + tanh) / 2n;
}

const errorFunctions: Subject[] = [
  {
    name: 'erf',
    compute: erf,
    exact: (F, x) => F.erf(x),
    size: x => x * x,
    allowed: () => 2,
    seams: [-4, -0.75, 0, 0.75, 4],
    tail: [-6, -5],
  },
  {
    name: 'erfc',
    compute: erfc,
    exact: (F, x) => F.of(1) - F.erf(x),
    size: x => x * x,
    allowed: () => 4,
    seams: [-0.75, 0, 0.75, 4],
    tail: [21, 27.5],
  },
  {
    name: 'sigmoid',
    compute: sigmoid,
    exact: logistic,
    size: Math.abs,
    allowed: () => 3,
    seams: [0],
    tail: [-745, -500],
  },
];

/** `allowed` for σ; for σ′ it is 2 more, in ulp of its two terms. */
const smooth: (Subject & { readonly name: ActivationName })[] = [
  {
    name: 'silu',
    compute: activations.silu.apply,
    exact: (F, h) => F.mul(h, logistic(F, h)),
    size: Math.abs,
    allowed: () => 4,
    seams: [0],
    tail: [-708, -500],
  },
  {
    name: 'gelu',
    compute: activations.gelu.apply,
    exact: (F, h) => F.mul(h, F.normal(h)),
    size: h => (h * h) / 2,
    allowed: () => 5,
    seams: [-4 * Math.SQRT2, -0.75 * Math.SQRT2, -1, 0, 0.75 * Math.SQRT2, 4 * Math.SQRT2],
    tail: [-37.6, -30],
  },
  {
    name: 'gelu_tanh',
    compute: activations.gelu_tanh.apply,
    exact: tanhForm,
    size: h => Math.abs(twoU(h)),
    // five rounded operations make 2u = z, and the logarithm of sigmoid(z) has the slope 1 / (1 + e^z)
    allowed: h => 4 + (5 * Math.abs(twoU(h))) / (1 + Math.exp(twoU(h))),
    seams: [0],
    tail: [-21, -18],
  },
];

/** float64 from min to max, evenly: fc.double would prefer tiny ones. */
function uniform(min: number, max: number): fc.Arbitrary<number> {
  return fc.maxSafeInteger().map(i => (min + max) / 2 + (i / Number.MAX_SAFE_INTEGER) * ((max - min) / 2));
}

function argument({ seams, tail }: Subject): fc.Arbitrary<number> {
  const offset = fc.oneof(uniform(-(2 ** -50), 2 ** -50), uniform(-1e-3, 1e-3));
  return fc.oneof(
    { weight: 2, arbitrary: uniform(-8, 8) },
    { weight: 1, arbitrary: uniform(8, 24) },
    { weight: 1, arbitrary: fc.tuple(fc.constantFrom(...seams), offset).map(([seam, by]) => seam + by) },
    { weight: 2, arbitrary: uniform(...tail) },
    { weight: 2, arbitrary: fc.double({ min: -1e-3, max: 1e-3, noNaN: true }) },
  );
}

const places = ['seam', 'tail', 'tiny'];

function reachPlaces({ seams, tail }: Subject, x: number, reach: (place: string) => void): void {
  if (seams.some(seam => Math.abs(x - seam) <= 1e-3)) reach('seam');
  if (x >= tail[0] && x <= tail[1]) reach('tail');
  if (Math.abs(x) < 1e-30) reach('tiny');
}

/** The error of σ, in ulp. */
function error({ compute, exact, size }: Subject, x: number): number {
  const F = fixedPoint(size(x));
  const value = exact(F, F.of(x));
  return F.ulps(compute(x), value, value);
}

for (const subject of [...errorFunctions, ...smooth]) {
  property(
    `${subject.name} is within the promised ulp of the exact value`,
    argument(subject),
    (x, reach) => {
      reachPlaces(subject, x, reach);
      const off = error(subject, x);
      assert.ok(off <= subject.allowed(x), `${subject.name}(${x}) = ${subject.compute(x)} is ${off} ulp off`);
    },
    places,
  );

  test(`${subject.name} keeps that promise on both sides of every seam, and in a sweep`, t => {
    const { seams, tail } = subject;
    const sweep = Array.from({ length: 200 }, (_, i) => -5 + i / 20 + 1 / 37);
    const tailSweep = Array.from({ length: 20 }, (_, i) => tail[0] + ((tail[1] - tail[0]) * i) / 20);
    const beside = [...seams, ...tail].flatMap(seam => [-3, -2, -1, 0, 1, 2, 3].map(n => seam * (1 + n * 2 ** -53)));
    const powers = [-1074, -1073, -1023, -1022, -1021, -600, -60, -54, -53, -52, -27].map(e => 2 ** e);
    const [worst, at] = [...sweep, ...tailSweep, ...beside, ...powers]
      .map((x): [number, number] => [error(subject, x) / subject.allowed(x), x])
      .reduce((a, b) => (b[0] > a[0] ? b : a));
    t.diagnostic(`largest error ${(worst * subject.allowed(at)).toFixed(2)} ulp, at ${at}`);
    assert.ok(worst <= 1, `${worst} of what is allowed, at ${at}`);
  });
}

for (const subject of smooth) {
  const { derivative } = activations[subject.name];
  property(
    `${subject.name} has the derivative that differences of its exact values have`,
    argument(subject),
    (x, reach) => {
      reachPlaces(subject, x, reach);
      const F = fixedPoint(subject.size(x));
      const [h, step] = [F.of(x), F.of(2 ** -300)];
      const value = subject.exact(F, h);
      const exact = F.div(subject.exact(F, h + step) - value, step);
      // σ′ is the sum of σ/h and a second term, which cancel at the minimum of σ
      const first = x === 0 ? F.of(0.5) : F.div(value, h);
      const off = F.ulps(derivative(x), exact, magnitude(first) + magnitude(exact - first));
      assert.ok(off <= subject.allowed(x) + 2, `σ′(${x}) = ${derivative(x)} is ${off} ulp of its terms off`);
    },
    places,
  );
}

test('relu is max(h, 0), and its derivative at 0 is 0', () => {
  const { apply, derivative } = activations.relu;
  for (const [h, value, slope] of [
    [-2, 0, 0],
    [-5e-324, 0, 0],
    [0, 0, 0],
    [-0, 0, 0],
    [5e-324, 5e-324, 1],
    [2.5, 2.5, 1],
  ]) {
    assert.deepEqual([apply(h), derivative(h)], [value, slope], `at ${h}`);
  }
  assert.ok(Number.isNaN(apply(Number.NaN)));
});

test('every activation is 0 at 0, and its derivative there is ½ (relu: 0)', () => {
  for (const [name, { apply, derivative }] of Object.entries(activations)) {
    assert.deepEqual([name, apply(0), derivative(0)], [name, 0, name === 'relu' ? 0 : 0.5]);
  }
});

test('swiglu and geglu are the gated silu and gelu; the others are not gated', () => {
  const gated = Object.entries(activations).filter(([, activation]) => activation.gated);
  assert.deepEqual(gated.map(([name]) => name).sort(), ['geglu', 'swiglu']);
  for (const h of [-40, -3, -0.5, 0, 0.7, 5]) {
    for (const [name, plain] of [
      ['swiglu', activations.silu],
      ['geglu', activations.gelu],
    ] as const) {
      assert.equal(activations[name].apply(h), plain.apply(h));
      assert.equal(activations[name].derivative(h), plain.derivative(h));
    }
  }
});

property(
  'every finite argument gives finite values: far out h and 1, or 0 and 0',
  fc.oneof(
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.constantFrom(1e308, -1e308, Number.MAX_VALUE, -Number.MAX_VALUE, 1e103, -1e103, 1e155, -1e155),
  ),
  (h, reach) => {
    for (const [name, { apply, derivative }] of Object.entries(activations)) {
      const [value, slope] = [apply(h), derivative(h)];
      assert.ok(Number.isFinite(value) && Number.isFinite(slope), `${name} at ${h}: ${value}, ${slope}`);
      if (h > 800) {
        reach('far right');
        assert.deepEqual([value, slope], [h, 1], `${name} at ${h}`);
      }
      if (h < -800) {
        reach('far left');
        assert.ok(value === 0 && slope === 0, `${name} at ${h}: ${value}, ${slope}`);
      }
    }
    assert.ok(sigmoid(h) >= 0 && sigmoid(h) <= 1);
  },
  ['far right', 'far left'],
);
