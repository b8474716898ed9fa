/** Recipes by number: repeatable, and soon at every place where faults start. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkLayer, forward, reference, type Trace } from 'xmoe';
import { drawRecipe, features, type Layer, layerOf } from 'xmoe/cases';

const first = (n: number, seed = 0) => Array.from({ length: n }, (_, i) => drawRecipe(seed, i));

test('a recipe follows from its seed and number', () => {
  assert.deepEqual(first(50, 7), first(50, 7));
  assert.deepEqual(drawRecipe(7, 49), first(50, 7)[49]);
  assert.notDeepEqual(first(50, 7), first(50, 8));
  assert.equal(new Set(first(2000).map(recipe => JSON.stringify(recipe))).size, 2000);
});

test('another seed draws other recipes, in no order the same', () => {
  const drawn = [0, 1, 2, 3].flatMap(seed => first(512, seed)).map(recipe => JSON.stringify(recipe));
  assert.equal(new Set(drawn).size, drawn.length);
});

test('recipes keep to what is wanted', () => {
  const wanted = { routers: ['switch', 'hash'], activations: ['silu'], logits: ['level'], storage: 'f64' } as const;
  for (let i = 0; i < 200; i++) {
    const { router, activation, logits, storage } = drawRecipe(3, i, wanted);
    assert.ok(router === 'switch' || router === 'hash');
    assert.deepEqual([activation, logits, storage], ['silu', 'level', 'f64']);
  }
  for (let i = 0; i < 200; i++) {
    const { weights, config, inputs } = layerOf(drawRecipe(3, i, { without: features }));
    assert.deepEqual(
      [weights.upBias, weights.gateBias, weights.downBias, config.skipExpert, config.capacityFactor],
      [...[undefined, undefined, undefined, undefined], null],
    );
    assert.deepEqual([inputs.noise, inputs.tokenMask], [undefined, undefined]);
  }
  assert.throws(() => drawRecipe(0, 0, { routers: [] }), /"wanted" expected some of threshold, .*got/);
});

test('every drawn layer is legal, and its numbers are float32', () => {
  for (const recipe of first(500, 11)) {
    const { x, weights, config, inputs, gradY } = layerOf(recipe);
    checkLayer(weights, config);
    for (const a of [x, gradY, weights.router, ...weights.up, ...weights.down, inputs.noise]) {
      assert.ok(!a || a.data.every((v: number) => Math.fround(v) === v));
    }
  }
});

type Place = (layer: Layer, trace: Trace) => boolean;

/** How many of its equal probabilities, powers of ½, come to τ; NaN where that is none of 1 … E − 1, or they are not equal. */
function meetingOf({ config }: Layer, { routing: { probs } }: Trace): number {
  const isLevel = probs.data.length > 0 && probs.data.every((v: number) => v === probs.data[0]);
  const met = (config.threshold ?? 0) * probs.cols;
  const isMet = Math.round(met) > 0 && Math.round(met) < probs.cols;
  return config.router === 'threshold' && isLevel && Number.isInteger(Math.log2(probs.cols)) && isMet
    ? met
    : Number.NaN;
}

/** Where a fault may start; each must come up within so many cases, for every seed tried. */
const places: [name: string, within: number, place: Place][] = [
  ['no token', 100, ({ x }) => x.rows === 0],
  ['one token', 100, ({ x }) => x.rows === 1],
  ['one expert', 100, ({ config }) => config.numExperts === 1],
  ['a 33rd token', 200, ({ x }) => x.rows > 32],
  ['a token of index 256', 400, ({ x }) => x.rows > 256],
  ['a selected expert of index 128', 400, (_, { plan }) => plan.selection.expertIndex.some(e => e >= 128)],
  ['a selected expert of index 256', 400, (_, { plan }) => plan.selection.expertIndex.some(e => e >= 256)],
  ['d above 64, no multiple of 4', 400, ({ x }) => x.cols > 64 && x.cols % 4 !== 0],
  ['m above 64, no multiple of 4', 400, ({ weights }) => weights.up[0].rows > 64 && weights.up[0].rows % 4 !== 0],
  ['a fifth vector in d and in m', 50, ({ x, weights }) => x.cols > 16 && weights.up[0].rows > 4],
  [
    'logits all negative',
    100,
    (_, { routing }) => routing.logits.data.length > 4 && routing.logits.data.every(z => z < 0),
  ],
  ['a probability of 0', 100, (_, { routing }) => routing.probs.data.some(p => p === 0)],
  ['a drop', 50, (_, { plan }) => plan.kept.some(kept => !kept)],
  ['a token that loses all', 100, (_, { plan }) => plan.kept.length > 0 && plan.kept.every(kept => !kept)],
  ['a capacity above T', 200, ({ config, x }) => (config.minCapacity ?? 4) > x.rows && config.capacityFactor !== null],
  ['padding', 50, ({ inputs }) => inputs.tokenMask?.includes(0) ?? false],
  ['only padding', 200, ({ inputs }) => !!inputs.tokenMask?.length && !inputs.tokenMask.includes(1)],
  ['a skip expert', 50, ({ config }) => config.skipExpert === true],
  [
    'an expert without tokens',
    50,
    (_, { plan }) => plan.expertOffsets.some((o, e) => e > 0 && o === plan.expertOffsets[e - 1]),
  ],
  [
    'a token with three experts',
    50,
    (_, { plan }) => plan.selection.tokenOffsets.some((o, t, all) => all[t + 1] - o > 2),
  ],
  ['x in the hundreds', 100, ({ x }) => x.data.some((v: number) => Math.abs(v) > 100)],
  ['a mass that meets τ exactly', 150, (layer, trace) => Number.isInteger(meetingOf(layer, trace))],
  [
    'a mass within 2^-9 of τ, and not at it',
    400,
    (layer, trace) => {
      const met = meetingOf(layer, trace);
      return met !== Math.round(met) && Math.abs(met / Math.round(met) - 1) < 2 ** -9;
    },
  ],
];

test('recipes soon come to every hostile place', () => {
  for (const seed of [0, 1, 2]) {
    const missing = new Map(places.map(([name, within, place]) => [name, { within, place }]));
    for (let i = 0; i < 400; i++) {
      const layer = layerOf(drawRecipe(seed, i));
      const trace = forward(reference, layer.x, layer.weights, layer.config, layer.inputs);
      for (const [name, { within, place }] of missing) if (i < within && place(layer, trace)) missing.delete(name);
    }
    assert.deepEqual([...missing.keys()], [], `seed ${seed}`);
  }
});
