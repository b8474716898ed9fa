/** `conform`: what is right conforms, whatever part of it is given; what is wrong is blamed on its stage, and named. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Backend, type Config, type Matrix, reference, referenceF32 } from 'xmoe';
import { layerOf, matrixOf, uniform } from 'xmoe/cases';
import { type NamedTensor, readLayerCase } from 'xmoe/layer-case';
import {
  type ArithmeticName,
  arithmeticNamed,
  type Conformance,
  conform,
  describe,
  errorBounds,
  implementationOf,
  type LayerCall,
  type Outputs,
  type StageName,
  toJson,
} from 'xmoe/oracle';
import { readSafetensors, toFloat64 } from 'xmoe/safetensors';
import { layers, routerNames } from 'xmoe/spec';
import { partOfOutputs } from './part-of-outputs.js';
import { property } from './property.js';

const [f64, f32] = [arithmeticNamed('f64'), arithmeticNamed('f32')];
const exact = implementationOf(reference);
const rounded = implementationOf({ ...referenceF32, backward: reference.backward! });

const run = (call: LayerCall, backend: Backend = reference) => implementationOf(backend).run(call) as Outputs;

const verdictOn = ({ stages }: Conformance, stage: StageName) => stages.find(judged => judged.stage === stage)!;

function assertConforms(conformance: Conformance): void {
  assert.equal(conformance.verdict, 'conforms', describe(conformance));
}

function assertBlamed(conformance: Conformance, stage: StageName, why?: RegExp): void {
  assert.equal(conformance.blamed, stage, describe(conformance));
  assert.equal(conformance.verdict, 'does not conform');
  if (why) assert.match(verdictOn(conformance, stage).detail, why);
}

/** The outputs with some of them changed, or (undefined) left out. */
function changed(outputs: Outputs, changes: Readonly<Record<string, NamedTensor | undefined>>): Outputs {
  const entries = Object.entries(changes).filter(([, tensor]) => tensor !== undefined) as [string, NamedTensor][];
  return new Map([...outputs, ...entries].filter(([name]) => !(name in changes) || changes[name] !== undefined));
}

const only = (outputs: Outputs, ...names: string[]): Outputs =>
  new Map([...outputs].filter(([name]) => names.includes(name)));

const flags = (numExperts: number, ...rows: number[][]): NamedTensor => ({
  shape: [rows.length, numExperts],
  data: Uint8Array.from(rows.flatMap(row => Array.from({ length: numExperts }, (_, e) => (row.includes(e) ? 1 : 0)))),
});

const floats = (shape: number[], ...data: number[]): NamedTensor => ({ shape, data: Float64Array.from(data) });

/**
 * Tokens whose logits are the given rows, as x; expert e says e + 1 and its square, whatever it is given. Logits of equal
 * experts are equal, and exact.
 */
function callOf(logits: number[][], config: Partial<Config> = {}, more: Partial<LayerCall> = {}): LayerCall {
  const numExperts = logits[0].length;
  const width = Math.max(2, numExperts);
  const zeros = (rows: number, cols: number) => matrixOf(rows, cols, () => 0);
  return {
    config: { router: 'threshold', numExperts, threshold: 0.9, capacityFactor: null, activation: 'relu', ...config },
    x: matrixOf(logits.length, width, (t, c) => logits[t][c] ?? 0),
    weights: {
      router: matrixOf(numExperts, width, (e, c) => (e === c ? 1 : 0)),
      up: Array.from({ length: numExperts }, () => zeros(1, width)),
      down: Array.from({ length: numExperts }, () => zeros(width, 1)),
      downBias: matrixOf(numExperts, width, (e, c) => (e + 1) ** (c + 1)),
    },
    inputs: {},
    ...more,
  };
}

const level = (numExperts: number, numTokens = 1) =>
  Array.from({ length: numTokens }, () => Array<number>(numExperts).fill(0));

const folder = new URL('../../spec/recordings/', import.meta.url);

test('what the authors’ code computed conforms, in float64 and in float32, gradients and all', t => {
  const nearest = new Map<string, number>();
  const files = readdirSync(folder).filter(name => name.endsWith('.safetensors'));
  assert.equal(files.length, 24);
  for (const file of files) {
    const bytes = readFileSync(new URL(file, folder));
    const { tensors } = readSafetensors(bytes);
    for (const [prefix, arithmetic] of [
      ['out.', f64],
      ['out32.', f32],
    ] as const) {
      const own = [...tensors].filter(([name]) => name.startsWith(prefix));
      const outputs: Outputs = new Map(
        own.map(([name, tensor]) => {
          const data = tensor.dtype === 'U8' ? Uint8Array.from(tensor.bytes) : toFloat64(tensor, name);
          return [name.slice(prefix.length), { shape: tensor.shape, data }];
        }),
      );
      assert.ok(outputs.size >= 6, `${file} ${prefix}`);
      const conformance = conform(outputs, readLayerCase(bytes), arithmetic);
      assertConforms(conformance);
      for (const { stage, worst } of conformance.stages) {
        const name = `${arithmetic.name} ${stage}`;
        if (worst) nearest.set(name, Math.max(nearest.get(name) ?? 0, worst.difference / worst.bound));
      }
    }
  }
  for (const [name, ratio] of nearest) t.diagnostic(`${name}: errors up to ${ratio.toPrecision(2)} of the bound`);
});

property(
  'the reference conforms, and rounded to float32 too, whatever part of its outputs is given',
  fc.tuple(layers(), fc.integer({ min: 0, max: 2 ** 31 - 1 }), fc.boolean()),
  ([layer, seed, inFloat32], reach) => {
    const implementation = inFloat32 ? rounded : exact;
    const outputs = implementation.run(layer) as Outputs;
    assertConforms(conform(outputs, layer, implementation.arithmetic));
    const some = partOfOutputs(outputs, seed);
    if (some.size > 0) assertConforms(conform(some, layer, implementation.arithmetic));
    if (some.has('y') && !some.has('selected') && !some.has('kept')) reach('decisions not told');
    reach(layer.config.router);
  },
  [...routerNames, 'decisions not told'],
);

test('gradients are not judged on pairs that y cannot tell, and are where they are told', () => {
  // one place of expert 1, and a weight of 4e-13 for either token: y is the same to float32
  const layer = layerOf({
    router: 'threshold',
    activation: 'relu',
    sizes: { numTokens: 2, numExperts: 2, dModel: 9, dFf: 1 },
    logits: 'steep',
    expertValues: 'generic',
    biases: { up: false, gate: false, down: false },
    storage: 'f64',
    threshold: 1 + 2 ** -52,
    topK: 1,
    noise: false,
    capacity: { capacityFactor: 0, minCapacity: 1 },
    skipExpert: false,
    auxLossCoef: 0,
    mask: 'absent',
    seed: 0,
  });
  const outputs = rounded.run(layer) as Outputs;
  const untold = conform(only(outputs, 'logits', 'y', 'grad.x', 'grad.router.weight'), layer, f32);
  assertConforms(untold);
  assert.equal(verdictOn(untold, 'grad.router.weight').verdict, 'not judged');
  const told = conform(only(outputs, 'logits', 'kept', 'y', 'grad.x', 'grad.router.weight'), layer, f32);
  assertConforms(told);
  assert.equal(verdictOn(told, 'grad.router.weight').verdict, 'agree');
});

test('a combine weight that is not 0 tells who was kept, however small it is', () => {
  // two tokens alike for one place of each expert; their second p is e^-90, give or take more than itself, as logits are 1e7
  const config: Config = {
    router: 'threshold',
    threshold: 1.5,
    numExperts: 2,
    capacityFactor: 0,
    minCapacity: 1,
    activation: 'relu',
  };
  const up = matrixOf(1, 2, (_, c) => c);
  const down = matrixOf(2, 1, () => 1);
  const router = { rows: 2, cols: 2, data: Float64Array.of(1, 90, 1, 0) };
  const x = matrixOf(2, 2, (_, c) => (c === 0 ? 1e7 : 1));
  const call: LayerCall = { config, weights: { router, up: [up, up], down: [down, down] }, x, inputs: {} };
  const smallest = Math.fround(Math.exp(-90));
  assert.ok(smallest > 0 && smallest < 2 ** -126);
  for (const keeper of [0, 1]) {
    const combine = floats([2, 2], 1, 0, 0, 0);
    (combine.data as Float64Array)[2 * keeper + 1] = smallest;
    const y = floats([2, 2], 1, 1, ...(keeper === 1 ? [smallest, smallest] : [0, 0]));
    assertConforms(
      conform(
        new Map([
          ['combine', combine],
          ['y', y],
        ]),
        call,
        f32,
      ),
    ); // y would be right either way
  }
});

property(
  'one value off by a hundred bounds is caught, and blamed on its stage',
  fc.tuple(layers({ logits: ['generic', 'tied', 'level'] }), fc.integer({ min: 0, max: 2 ** 31 - 1 })),
  ([layer, seed], reach) => {
    const outputs = rounded.run(layer) as Outputs;
    // where tokens have several first choices the loss may lie anywhere between what they give
    const open = verdictOn(conform(outputs, layer, rounded.arithmetic), 'loss').numAmbiguous > 0;
    const bounds = errorBounds(layer, outputs.get('kept')!.data as Uint8Array, rounded.arithmetic);
    const names = [...bounds.keys()].filter(
      name => (outputs.get(name)?.data.length ?? 0) > 0 && !(open && name === 'load_balancing_loss'),
    );
    if (names.length === 0) return;
    const name = names[Math.floor(uniform(seed, 1) * names.length)];
    const { shape, data } = outputs.get(name)!;
    const index = Math.floor(uniform(seed, 2) * data.length);
    const wrong = Float64Array.from(data);
    wrong[index] += 100 * bounds.get(name)!.error[index] + 1e-6 * Math.max(1, Math.abs(wrong[index]));
    const conformance = conform(changed(outputs, { [name]: { shape, data: wrong } }), layer, rounded.arithmetic);
    const blamed = { expert_out: 'experts', y: 'combine', load_balancing_loss: 'loss', kept: 'dispatch' }[name] ?? name;
    assertBlamed(conformance, blamed as StageName);
    const { worst } = verdictOn(conformance, blamed as StageName);
    assert.ok(worst && worst.difference > worst.bound, describe(conformance));
    reach(
      name.startsWith('grad.') ? 'a gradient' : name === 'y' || name === 'expert_out' ? 'experts' : 'router and loss',
    );
  },
  ['router and loss', 'experts', 'a gradient'],
);

/** Any tensor: of a right or a wrong shape, kind and value. */
const rubbish: fc.Arbitrary<unknown> = fc.oneof(
  fc.record({
    shape: fc.array(fc.integer({ min: -1, max: 5 }), { maxLength: 4 }),
    data: fc.oneof(
      fc.float64Array({ maxLength: 30 }),
      fc.float32Array({ maxLength: 30 }),
      fc.uint8Array({ maxLength: 30 }),
      fc.int32Array({ maxLength: 30 }),
    ),
  }),
  fc.constantFrom(null, undefined, 7, 'y', [], {}, { shape: [1] }, { shape: 'no', data: new Float64Array(1) }),
);
const hostileValues = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1e308, -1e308, 5e-324, -1, 2, 0];

property(
  'hostile outputs never crash it',
  fc.tuple(layers({ maxSize: 6, large: false }), fc.array(rubbish, { minLength: 16, maxLength: 16 }), fc.integer()),
  ([layer, tensors, seed], reach) => {
    const honest = exact.run(layer) as Outputs;
    const outputs: Outputs = new Map(
      [...honest].map(([name, tensor], i) => {
        if (uniform(seed, i) < 0.3) return [name, tensors[i % tensors.length] as NamedTensor];
        if (uniform(seed, i) < 0.5) return [name, tensor];
        const data = Float64Array.from(tensor.data, (value, j) =>
          uniform(seed, i, j) < 0.2 ? hostileValues[Math.floor(uniform(seed, i, j, 1) * hostileValues.length)] : value,
        );
        return [name, { shape: tensor.shape, data }];
      }),
    );
    const conformance = conform(outputs, layer, uniform(seed, 99) < 0.5 ? f64 : f32);
    reach(conformance.verdict);
    for (const { kind } of conformance.findings) reach(kind);
    assert.ok(describe(conformance).length > 0);
    assert.doesNotThrow(() => JSON.stringify(toJson(conformance)));
  },
  ['does not conform', 'wrong shape', 'non-finite', 'out of range', 'duplicate expert'],
);

test('D2 where all is exact, mass equal to τ ends the selection, told by its experts or by y alone', () => {
  const call = callOf(level(4), { threshold: 0.5 });
  assertConforms(conform(run(call), call, f32));
  assertConforms(conform(only(run(call), 'y'), call, f32));
  const exceed = run(callOf(level(4), { threshold: 0.75 })); // one expert more
  assertBlamed(conform(exceed, call, f32), 'selection', /as the "exceed" relative/);
  assertBlamed(conform(only(exceed, 'y'), call, f32), 'selection', /as the "exceed" relative/);
  assertBlamed(
    conform(only(exceed, 'combine', 'y'), call, f32),
    'selection',
    /by its combine weights .* "exceed" relative/,
  );
  const within = run(callOf(level(4), { threshold: 0.5 }));
  assertBlamed(conform(within, callOf(level(4), { threshold: 0.625 }), f32), 'selection', /as the "within" relative/);
  assertBlamed(conform(only(within, 'y'), callOf(level(4), { threshold: 0.625 }), f32), 'selection', /"within"/);
});

test('D1 which of equal experts come first is open, and told', () => {
  const call = callOf(level(4, 2), { threshold: 0.5 });
  const outputs = run(call);
  const told = (conformance: Conformance) => conformance.findings.find(({ kind }) => kind === 'tie order')!;
  assert.match(told(conform(outputs, call, f32)).detail, /equal probability: the lower expert index first \(2 ties\)/);
  const highest = only(changed(outputs, { selected: flags(4, [2, 3], [2, 3]) }), 'logits', 'probs', 'selected');
  const conformance = conform(highest, call, f32);
  assertConforms(conformance);
  assert.equal(told(conformance).severity, 'property');
  assert.match(told(conformance).detail, /the higher expert index first/);
  assert.equal(verdictOn(conformance, 'selection').verdict, 'admissible');
  assert.equal(verdictOn(conformance, 'selection').numAmbiguous, 2);
  const three = changed(highest, { selected: flags(4, [1, 2, 3], [2, 3]) });
  assertBlamed(
    conform(three, call, f32),
    'selection',
    /1 of 2 tokens; token 0: .*\(the mass before its last expert, 0.5/,
  );
});

test('D2 within the rounding of the mass and of τ both answers pass, and are counted', () => {
  const probs = [0.4, 0.3, 0.2, 0.1].map(Math.fround);
  const call = callOf([probs.map(Math.log)], { threshold: 0.7 });
  const outputs = (...experts: number[]): Outputs =>
    new Map([
      ['probs', floats([1, 4], ...probs)],
      ['selected', flags(4, experts)],
    ]);
  for (const experts of [
    [0, 1],
    [0, 1, 2],
  ]) {
    const conformance = conform(outputs(...experts), call, f32);
    assertConforms(conformance);
    assert.equal(verdictOn(conformance, 'selection').numAmbiguous, 1);
  }
  const far = callOf([probs.map(Math.log)], { threshold: 0.7001 });
  assert.equal(verdictOn(conform(outputs(0, 1, 2), far, f32), 'selection').numAmbiguous, 0);
  assertBlamed(conform(outputs(0, 1), far, f32), 'selection', /does not reach τ/);
});

test('a wrong selection is named: no first expert, another τ, a fixed number, other experts, padding', () => {
  const logits = [
    [3, 2, 1, 0],
    [0, 0, 9, 0],
  ];
  const call = callOf(logits, { threshold: 0.9 });
  const selecting = (...experts: number[][]) =>
    conform(changed(run(call), { selected: flags(4, ...experts) }), call, f32);
  assertBlamed(selecting([0, 1, 2], []), 'selection', /rank 0 not forced/);
  assertBlamed(selecting([0], [2]), 'selection', /as for a τ of at most 0.64/);
  assertBlamed(selecting([0, 1], [2, 3]), 'selection', /always the 2 most probable|not the most probable/);
  assertBlamed(selecting([1, 2, 3], [2]), 'selection', /not the most probable experts/);
  const masked = { ...call, inputs: { tokenMask: Uint8Array.of(1, 0) } };
  assertBlamed(conform(run(call), masked, f32), 'selection', /padded token 1 selects experts/);
});

test('D11 a capacity that float32 rounding explains is admissible, any other is named', () => {
  const logits = level(2, 8).map(() => [5, 0]);
  const config = { threshold: 0.5, minCapacity: 0 };
  const call = (capacityFactor: number) => callOf(logits, { ...config, capacityFactor });
  const near = call(1 + 2 ** -30); // 4.000000004: 5 in float64; γ is 1 in float32, which gives 4
  assertConforms(conform(run(call(1)), near, f32));
  assert.equal(verdictOn(conform(run(call(1)), near, f32), 'dispatch').verdict, 'admissible');
  assertConforms(conform(run(near), near, f32));
  const ten = level(2, 10).map(() => [5, 0]);
  const [fifth, single] = [0.2, Math.fround(0.2)].map(capacityFactor => callOf(ten, { ...config, capacityFactor }));
  assert.equal(verdictOn(conform(run(single), fifth, f32), 'dispatch').verdict, 'admissible'); // 2 for 1.00000001, not 1
  assertBlamed(conform(run(near), call(1), f32), 'dispatch', /keeps 5 of 8 tokens, expected 4.*capacity one too large/);
  assertBlamed(conform(run(callOf(logits, config)), call(1), f32), 'dispatch', /as if: no capacity/);
});

test('D12 equal priorities go in any order, near ones as in one float32 number; others are named', () => {
  const call = callOf(
    level(2, 2).map(() => [1, 0]),
    { threshold: 0.5, capacityFactor: 1, minCapacity: 1 },
  );
  const outputs = (p0: number, p1: number, keeps: number): Outputs =>
    new Map([
      ['probs', floats([2, 2], p0, 1 - p0, p1, 1 - p1)],
      ['selected', flags(2, [0], [0])],
      ['kept', flags(2, ...(keeps === 0 ? [[0], []] : [[], [0]]))],
    ]);
  const p = Math.fround(0.7310586);
  const verdict = (p1: number, keeps: number) => conform(outputs(p, p1, keeps), call, f32);
  assert.equal(verdictOn(verdict(p, 0), 'dispatch').verdict, 'agree');
  assert.match(describe(verdict(p, 0)), /equal rank and probability: the lower token index first/);
  assert.match(describe(verdict(p, 1)), /equal rank and probability: the higher token index first/);
  assert.equal(verdictOn(verdict(p - 2 ** -24, 1), 'dispatch').verdict, 'admissible'); // 1 + p rounds to 2^-23
  assert.equal(verdictOn(verdict(p - 2 ** -24, 1), 'dispatch').numAmbiguous, 1);
  const wrong = conform(outputs(p, p - 2 ** -20, 1), call, f32);
  assert.equal(verdictOn(wrong, 'dispatch').verdict, 'disagree');
  assert.match(verdictOn(wrong, 'dispatch').detail, /expert 0 drops token 0 .* but keeps token 1/);
});

test('D12 priority by probability alone, by position, and pairs that nobody selected', () => {
  // token 0 has expert 0 as its second choice, with a higher p than token 1, whose first choice it is
  const logits = [
    [2, 2.1, -9, -9],
    [1, 0.9, 0.8, 0.7],
  ];
  const call = callOf(logits, { threshold: 0.6, capacityFactor: 1, minCapacity: 1 });
  const right = run(call);
  assert.deepEqual(Array.from(right.get('kept')!.data), [0, 1, 0, 0, 1, 0, 1, 0]);
  const keeping = (...experts: number[][]) => conform(changed(right, { kept: flags(4, ...experts) }), call, f32);
  assertBlamed(keeping([0, 1], [2]), 'dispatch', /as if: priority by p/);
  assertBlamed(keeping([1, 3], [0, 2]), 'dispatch', /kept, but not selected: token 0, expert 3/);
  assertBlamed(keeping([1], [0]), 'dispatch', /expert 2 keeps 0 of 1 tokens, expected 1 \(capacity 1\)/);
});

test('D9 any best assignment passes, a worse or unbalanced one does not', () => {
  const call = callOf(
    [
      [1, 1],
      [1, 1],
      [3, 1],
      [1, 1],
    ],
    { router: 'base_train', capacityFactor: null },
  );
  const choosing = (...experts: number[]) => {
    const rows = experts.map(e => [e]);
    return conform(new Map([['selected', flags(2, ...rows)]]), call, f32);
  };
  const best = [choosing(0, 1, 0, 1), choosing(1, 0, 0, 1), choosing(1, 1, 0, 0)];
  for (const conformance of best) assertConforms(conformance);
  const verdicts = best.map(conformance => verdictOn(conformance, 'selection').verdict);
  assert.deepEqual(verdicts.sort(), ['admissible', 'admissible', 'agree']);
  assertBlamed(choosing(0, 0, 1, 1), 'selection', /not the best assignment: total score 4, the largest is 6/);
  assertBlamed(choosing(1, 1, 0, 1), 'selection', /expert 0 has 1 tokens, expected 2/);
});

test('D9 combine weights tell the assignment, those that are 0 by underflow too', () => {
  const call = callOf(
    [
      [0, -1000],
      [1000, 0],
    ],
    { router: 'base_train' },
  );
  // both have a total score of 0; sigmoid(−1000) is 0
  for (const [weights, y] of [
    [[0.5, 0, 0, 0.5], floats([2, 2], 0.5, 0.5, 1, 2)],
    [[0, 0, 1, 0], floats([2, 2], 0, 0, 1, 1)],
  ] as const) {
    const told = new Map([
      ['combine', floats([2, 2], ...weights)],
      ['y', y],
      ['expert_out', floats([2, 2], 1, 1, 2, 4)],
    ]);
    const conformance = conform(told, call, f32);
    assertConforms(conformance);
    assert.equal(verdictOn(conformance, 'experts').verdict, 'agree');
    assertBlamed(conform(changed(told, { expert_out: floats([2, 2], 1, 1, 2, 5) }), call, f32), 'experts');
  }
});

test('C1 in f16 each product may be rounded to a subnormal number, and so may each weight', () => {
  const f16 = arithmeticNamed('f16');
  const step = 2 ** -24;
  const called = (logits: number[][], out: (expert: number) => number) => {
    const call = callOf(logits, { router: 'dense' });
    const downBias = matrixOf(logits[0].length, call.x.cols, out);
    return { ...call, weights: { ...call.weights, downBias } };
  };
  const judged = (call: LayerCall, y: number) => {
    const { cols } = call.x;
    return conform(changed(run(call), { y: floats([1, cols], ...Array<number>(cols).fill(y)) }), call, f16);
  };
  const ofSmallRows = called(level(4), () => 6 * step);
  assertConforms(judged(ofSmallRows, 6 * step));
  assertConforms(judged(ofSmallRows, 8 * step)); // four products of 1.5 steps, each rounded to 2
  assertBlamed(judged(ofSmallRows, 9 * step), 'combine');

  const ofSmallWeight = called([[0, -12.375]], e => 1024 * e);
  const weight = 1 / (1 + Math.exp(12.375)); // 70.8 steps
  const steps = Math.round(weight / step);
  assert.ok(Math.abs(weight / step - steps) > 0.15);
  assertConforms(judged(ofSmallWeight, 1024 * step * steps));
  assertBlamed(judged(ofSmallWeight, 1024 * step * (steps + 2)), 'combine');
});

test('E2 relu′(0) is 0 where the sum is exactly 0, and either where rounding may have moved it', () => {
  const one = (v: number, rows = 1): Matrix => matrixOf(rows, 1, () => v);
  const call = (x: number, bias: number): LayerCall => ({
    config: { router: 'threshold', numExperts: 1, threshold: 0.9, capacityFactor: null, activation: 'relu' },
    x: one(x),
    weights: { router: one(1), up: [one(3)], upBias: one(bias), down: [one(1)] },
    inputs: {},
    gradY: one(1),
  });
  const withSlope1 = (of: LayerCall) => {
    const outputs = run(of);
    const { data } = of.weights.up[0];
    return changed(outputs, {
      'grad.x': floats([1, 1], data[0]),
      'grad.experts.up_proj': floats([1, 1, 1], of.x.data[0]),
      'grad.experts.up_proj_bias': floats([1, 1], 1),
    });
  };
  assertBlamed(conform(withSlope1(call(2, -6)), call(2, -6), f32), 'grad.experts.up_proj');
  const tenth = Math.fround(0.1);
  assertConforms(conform(withSlope1(call(tenth, -Math.fround(3 * tenth))), call(tenth, -Math.fround(3 * tenth)), f32));
});

test('a wrong y without the experts’ rows is explained', () => {
  const [wide] = [matrixOf(5, 12, (t, c) => uniform(1, t, c) - 0.3)];
  const value = (tensor: number) => (i: number, j: number) => uniform(tensor, i, j) - 0.4;
  const weights = {
    router: matrixOf(3, 12, value(2)),
    up: [3, 4, 5].map(tensor => matrixOf(7, 12, value(tensor))),
    upBias: matrixOf(3, 7, value(6)),
    down: [7, 8, 9].map(tensor => matrixOf(12, 7, value(tensor))),
    downBias: matrixOf(3, 12, value(10)),
  };
  const config: Config = {
    router: 'threshold',
    numExperts: 3,
    threshold: 0.6,
    capacityFactor: null,
    activation: 'gelu',
  };
  const call: LayerCall = { config, x: wide, weights, inputs: {} };
  const right = changed(run(call), { expert_out: undefined });
  assertConforms(conform(right, call, f32));
  assert.equal(verdictOn(conform(right, call, f32), 'experts').detail, 'judged by y');
  const y = (other: LayerCall, backend?: Backend) => changed(right, { y: run(other, backend).get('y') });
  const combining = (change: (w: Float64Array, of: (t: number) => number) => Float64Array): Backend => ({
    ...reference,
    combine: (out, plan) => {
      const sums = new Float64Array(plan.selection.numTokens);
      plan.tokenIndex.forEach((t, i) => {
        sums[t] += plan.combineWeight[i];
      });
      const w = change(Float64Array.from(plan.combineWeight), i => sums[plan.tokenIndex[i]]);
      return reference.combine(out, { ...plan, combineWeight: w });
    },
  });
  const blamed = (outputs: Outputs, stage: StageName, why: RegExp) =>
    assertBlamed(conform(outputs, call, f32), stage, why);
  blamed(
    y(
      call,
      combining(w => w.map(v => v * v)),
    ),
    'combine',
    /as if: the weights squared/,
  );
  blamed(
    y(
      call,
      combining((w, of) => w.map((v, i) => v / of(i))),
    ),
    'combine',
    /as if: the kept weights renormalised/,
  );
  blamed(
    y(
      call,
      combining(w => w.map((v, i) => v * (1 + i / 9))),
    ),
    'combine',
    /the right experts with other weights/,
  );
  blamed(y({ ...call, config: { ...config, activation: 'gelu_tanh' } }), 'experts', /as if: gelu_tanh for gelu/);
  blamed(
    y({ ...call, weights: { ...weights, downBias: matrixOf(3, 12, () => 0) } }),
    'experts',
    /as if: no output bias/,
  );
  blamed(
    y({ ...call, weights: { ...weights, up: [...weights.up.slice(1), weights.up[0]] } }),
    'experts',
    /no weights of the right experts/,
  );
  blamed(
    changed(only(right, 'y'), { y: run({ ...call, config: { ...config, router: 'dense' } }).get('y') }),
    'selection',
    /as if: every expert counts/,
  );
});

test('non-finite, misshapen, repeated and unknown outputs are findings', () => {
  const call = callOf([[1, 0, 0]]);
  const right = run(call);
  const kinds = (outputs: Outputs) =>
    conform(outputs, call, f32)
      .findings.filter(({ severity }) => severity === 'fault')
      .map(({ kind }) => kind);
  assert.deepEqual(kinds(right), []);
  const nan = changed(right, { logits: floats([1, 3], 1, Number.NaN, 0) });
  assert.deepEqual(kinds(nan), ['non-finite']);
  assertBlamed(conform(nan, call, f32), 'logits', /1 of 3 values of logits .*, 1 of them not finite/);
  assert.equal(verdictOn(conform(nan, call, f32), 'probs').verdict, 'agree'); // on the reference's logits
  assert.deepEqual(kinds(changed(right, { y: floats([3, 1], 1, 2, 3) })), ['wrong shape']);
  assert.deepEqual(
    kinds(changed(right, { probs: { shape: [1, 3], data: new Int32Array(3) as unknown as Float64Array } })),
    ['wrong shape'],
  );
  assert.deepEqual(kinds(changed(right, { selected: { shape: [1, 3], data: Uint8Array.of(2, 0, 0) } })), [
    'duplicate expert',
  ]);
  assert.deepEqual(kinds(changed(right, { kept: floats([1, 3], 1, -1, 0), expert_out: undefined })), ['out of range']);
  assert.deepEqual(kinds(new Map([['Y', floats([1], 0)]])), ['wrote rubbish']);
  assert.deepEqual(kinds(new Map()), ['wrote rubbish']);
  assert.throws(() => conform({} as Outputs, call, f32), /"outputs" expected a Map of tensors by name, got an object/);
  const rows = right.get('expert_out')!;
  const short = changed(right, {
    expert_out: { shape: [rows.shape[0] - 1, 3], data: rows.data.slice(3) as Float64Array },
  });
  assertBlamed(conform(short, call, f32), 'experts', /expected \d rows, one for each kept pair/);
});

test('where the format overflows nobody is blamed', () => {
  const one = (v: number): Matrix => matrixOf(1, 1, () => v);
  const call: LayerCall = {
    config: { router: 'threshold', numExperts: 1, threshold: 0.9, capacityFactor: null, activation: 'relu' },
    x: one(300),
    weights: { router: one(1), up: [one(300)], down: [one(1)] },
    inputs: {},
  };
  const infinite = changed(run(call), {
    y: floats([1, 1], Number.POSITIVE_INFINITY),
    expert_out: floats([1, 1], Number.POSITIVE_INFINITY),
  });
  const conformance = conform(infinite, call, arithmeticNamed('f16'));
  assertConforms(conformance);
  assert.match(verdictOn(conformance, 'experts').detail, /may overflow the format/);
  assertBlamed(conform(infinite, call, arithmeticNamed('bf16')), 'experts');

  // a weight or a bias that float16 does not reach
  const { weights } = call;
  for (const large of [
    { ...weights, up: [one(1)], down: [one(70_000)] },
    { ...weights, up: [one(1)], downBias: one(70_000) },
  ]) {
    const more = { ...call, x: one(0.5), weights: large };
    const out = infinite.get('expert_out')!;
    assertConforms(conform(new Map([['expert_out', out]]), more, arithmeticNamed('f16')));
    assertBlamed(conform(new Map([['expert_out', out]]), more, arithmeticNamed('bf16')), 'experts');
  }

  // 0 · Inf is NaN: of relu, and of its slope
  const nan = floats([1, 1], Number.NaN);
  const zero = { ...call, x: one(70_000), weights: { ...weights, up: [one(0)] }, gradY: one(1) };
  const outputs = changed(only(run(zero), 'logits'), {
    y: nan,
    'grad.experts.up_proj': { ...nan, shape: [1, 1, 1] },
  });
  assertConforms(conform(outputs, zero, arithmeticNamed('f16')));
  assertBlamed(conform(outputs, zero, arithmeticNamed('bf16')), 'combine');

  // logits that float32 does not reach, and their softmax
  const steep = { ...call, x: one(1), weights: { ...weights, router: one(1e39), up: [one(1)] } };
  const ofSteep = changed(run(steep), {
    logits: floats([1, 1], Number.POSITIVE_INFINITY),
    probs: nan,
    combine: nan,
    y: nan,
    load_balancing_loss: floats([1], Number.NaN),
  });
  assertConforms(conform(ofSteep, steep, f32));
  assertBlamed(conform(ofSteep, steep, f64), 'logits');
});

test('where the format overflows, either of two tokens alike may have been kept', () => {
  // one place, and 300 · gelu(300) is too large for float16; the other column's weight is 0, times a bound that is infinite
  const config: Config = {
    router: 'threshold',
    threshold: 0,
    numExperts: 1,
    capacityFactor: 0,
    minCapacity: 1,
    activation: 'geglu',
  };
  const [x, up] = [matrixOf(2, 2, (_, c) => (c === 0 ? 300 : 0)), [matrixOf(1, 2, () => 1)]];
  const down = [matrixOf(2, 1, row => (row === 0 ? 1 : 0))];
  const call: LayerCall = { config, weights: { router: matrixOf(1, 2, () => 0), up, gate: up, down }, x, inputs: {} };
  for (const y of [
    [90_000, 0, 0, 0],
    [0, 0, 90_000, 0],
  ]) {
    assertConforms(conform(new Map([['y', floats([2, 2], ...y)]]), call, arithmeticNamed('f16')));
  }
});

test('the bounds by which y tells its experts are those by which it is judged', () => {
  // two experts of equal probability that differ by k / 1024; bfloat16 holds the first token, and not the second
  const config: Config = { router: 'switch', numExperts: 2, capacityFactor: null, activation: 'relu' };
  const matrix = (...data: number[]) => ({ rows: 2, cols: 2, data: Float64Array.from(data) });
  const x = matrix(0.75, 0, 0.7501, 1);
  for (let k = 1; k < 64; k++) {
    const down = [matrix(1, 0, 0, 0), matrix(1 + k / 1024, 0, 0, 1)];
    const weights = { router: matrix(0, 0, 0, 0), up: [matrix(1, 0, 0, 1), matrix(1, 0, 0, 1)], down };
    const y = floats([2, 2], ...[0, 1].flatMap(t => [((1 + k / 1024) * x.data[2 * t]) / 2, x.data[2 * t + 1] / 2]));
    assertConforms(conform(new Map([['y', y]]), { config, weights, x, inputs: {} }, arithmeticNamed('bf16')));
  }
});

test('errors that are all of one sign exceed the probabilistic bound: a warning, no fault', () => {
  const width = 4096;
  const call: LayerCall = {
    config: { router: 'threshold', numExperts: 1, threshold: 0.9, capacityFactor: null, activation: 'relu' },
    x: matrixOf(1, width, (_, c) => Math.fround(0.5 + uniform(1, c))),
    weights: {
      router: matrixOf(1, width, (_, c) => Math.fround(0.5 + uniform(2, c))),
      up: [matrixOf(1, width, () => 0)],
      down: [matrixOf(width, 1, () => 0)],
    },
    inputs: {},
  };
  const logit = (round: (v: number) => number) => {
    let sum = 0;
    call.x.data.forEach((v, c) => {
      sum = round(sum + round(v * call.weights.router.data[c]));
    });
    return new Map([['logits', floats([1, 1], sum)]]);
  };
  const downwards = (v: number) =>
    Math.fround(v) > v ? Math.fround(v) - 2 ** (Math.floor(Math.log2(v)) - 23) : Math.fround(v);
  const honest = verdictOn(conform(logit(Math.fround), call, f32), 'logits');
  assert.equal(honest.verdict, 'agree');
  assert.equal(honest.warning, undefined);
  assert.ok(honest.worst!.likelyBound! < honest.worst!.bound / 8);
  const biased = conform(logit(downwards), call, f32);
  assertConforms(biased);
  assert.match(verdictOn(biased, 'logits').warning!, /1 of 1 values are off by more than roundings of mean 0 explain/);
  assert.match(describe(biased), /^ +warning: 1 of 1/m);
});

test('the load-balancing loss may count any of several first choices, and nothing between', () => {
  const call = callOf([
    [0, 0, -50],
    [0, 0, -50],
  ]);
  const loss = (value: number) => conform(changed(run(call), { load_balancing_loss: floats([1], value) }), call, f64);
  assertConforms(loss(1.5)); // 3 · ½ · 1, whoever is first
  assertBlamed(loss(1.4), 'loss');
  const uneven = callOf([
    [0, 0],
    [9, 0],
  ]);
  const means = [(0.5 + 1 / (1 + Math.exp(-9))) / 2, (0.5 + 1 / (1 + Math.exp(9))) / 2];
  const of = (value: number) => conform(changed(run(uneven), { load_balancing_loss: floats([1], value) }), uneven, f64);
  assertConforms(of(2 * means[0]));
  assertConforms(of(means[0] + means[1]));
  assert.equal(verdictOn(of(2 * means[0]), 'loss').numAmbiguous, 1);
  assertBlamed(of(2 * means[1]), 'loss');
});

test('the training loss tells which of several first choices were counted, where the load-balancing loss is not given', () => {
  const logits = [
    [0, 0],
    [9, 0],
  ];
  const call = callOf(logits, { auxLossCoef: 0.5 }, { gradY: matrixOf(2, 2, () => 1) });
  const sumOfY = Array.from(run(call).get('y')!.data).reduce((sum, v) => sum + v, 0);
  const means = [(0.5 + 1 / (1 + Math.exp(-9))) / 2, (0.5 + 1 / (1 + Math.exp(9))) / 2];
  const of = (balancing: number) => {
    const loss = floats([1], sumOfY + 0.5 * balancing);
    return conform(changed(only(run(call), 'y'), { loss }), call, f64);
  };
  assertConforms(of(2 * means[0]));
  assertConforms(of(means[0] + means[1]));
  assertBlamed(of(2 * means[1]), 'loss');
  assertBlamed(of(2.1 * means[0]), 'loss');
});

test('the report names the stage, the place and the figures, and is JSON without loss', () => {
  const call = callOf([
    [3, 2, 1],
    [0, 1, 5],
  ]);
  const outputs = run(call);
  const probs = Float64Array.from(outputs.get('probs')!.data);
  probs[4] += 0.25;
  const conformance = conform(changed(outputs, { probs: { shape: [2, 3], data: probs } }), call, f32);
  assertBlamed(conformance, 'probs', /1 of 6 values of probs are off by more than their bounds/);
  const text = describe(conformance);
  assert.match(text, /^does not conform: look at probs$/m);
  assert.match(text, /^ {2}probs +disagree +0\.25 of \d\.\d+e-\d+ \(.* ulp\)$/m);
  assert.match(text, /^ +token 1, expert 1: reference 0\.017\d+, got 0\.267\d+, \|difference\| 0\.25, bound/m);
  assert.match(text, /^ {2}logits +agree/m);
  const { worst } = verdictOn(conformance, 'probs');
  assert.deepEqual([worst!.token, worst!.expert, worst!.column], [1, 1, undefined]);
  assert.ok(Math.abs(worst!.ulps - 0.25 / 2 ** -29) < 1e-3 * worst!.ulps); // 0.0177 lies in [2^-6, 2^-5)
  assert.deepEqual(JSON.parse(JSON.stringify(toJson(conformance))), toJson(conformance));
  const infinite = conform(changed(outputs, { probs: floats([2, 3], Number.NaN, 0, 0, 0, 0, 0) }), call, f32);
  assert.match(JSON.stringify(toJson(infinite)), /"value":"NaN","difference":"NaN"/);
  assert.doesNotMatch(JSON.stringify(toJson(infinite)), /null/);
});

test('a name of arithmetic is the experts’ format: logits and probabilities are judged in float32', () => {
  const call = callOf([[0.3, 0.1]]);
  const outputs = run(call);
  const logits = Float64Array.of(0.30078125, 0.10009765625); // bf16
  const wrong = changed(outputs, { logits: { shape: [1, 2], data: logits } });
  for (const name of ['bf16', 'f16', 'tf32', 'int8'] as ArithmeticName[]) {
    assertConforms(conform(outputs, call, arithmeticNamed(name)));
    assertBlamed(conform(wrong, call, arithmeticNamed(name)), 'logits');
  }
});
