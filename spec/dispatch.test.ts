/** Rules D10-D16: capacity, who is dropped, and the plan. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { capacityOf, type DispatchPlan, reference, routers } from 'xmoe';
import { type Layer, layers, noDrop, routerNames, withCapacity } from 'xmoe/spec';
import { assertSame, assertWithin, TINY, U } from './close.js';
import { plainLogits, plainWeights, probabilityError } from './plain.js';
import { property } from './property.js';
import { expertsOf, type Pair, pairsOf, realTokens, weightTable } from './tables.js';
import { takeTokens } from './transforms.js';

function planIn({ x, weights, inputs, config }: Layer, change: Partial<Layer['config']> = {}): DispatchPlan {
  return reference.dispatch(reference.route(x, weights), inputs, { ...config, ...change });
}

const dropping = routerNames.filter(router => routers[router].dropOrder !== 'none');

property(
  'D11 C seats at each expert hold γ·T pairs, and one seat fewer would not, unless the minimum or T decides',
  fc.noBias(
    fc.record({
      numTokens: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 100_000 })),
      whole: fc.constantFrom('neither', 'T/E', '8γ/E'),
      eighths: fc.oneof(fc.integer({ min: 0, max: 16 }), fc.integer({ min: 0, max: 1000 })),
      minCapacity: fc.integer({ min: 0, max: 8 }),
      numExperts: fc.integer({ min: 1, max: 40 }),
    }),
  ),
  ({ numTokens: some, whole, eighths: factor, minCapacity, numExperts }, reach) => {
    // γ·T/E is an integer where E divides T or 8γ, whatever T/E and γ/E round to
    const numTokens = whole === 'neither' ? some : 8 * some * (whole === 'T/E' ? numExperts : 1);
    const eighths = whole === '8γ/E' ? numExperts * (factor % 8) : factor;
    const capacity = capacityOf(numTokens, eighths / 8, minCapacity, numExperts);
    const [pairs, seats] = [eighths * numTokens, 8 * numExperts]; // both in eighths: integers
    assert.ok(Number.isInteger(capacity) && capacity >= Math.min(numTokens, minCapacity) && capacity <= numTokens);
    if (capacity < numTokens) assert.ok(seats * capacity >= pairs, 'too few seats');
    if (capacity > minCapacity) assert.ok(seats * (capacity - 1) < pairs, 'a seat too many');
    const byFactor = capacity > minCapacity && capacity < numTokens;
    if (byFactor) reach(pairs % seats > 0 ? 'rounded up' : 'without a rest');
    if (capacity === minCapacity && capacity < numTokens) reach('the minimum decides');
    if (capacity === numTokens && pairs > seats * numTokens) reach('T decides');
  },
  ['rounded up', 'without a rest', 'the minimum decides', 'T decides'],
  { share: 10 },
);

property(
  'D11 the capacity of a plan is that of the real tokens and the real experts',
  layers({ routers: dropping, capacities: withCapacity, masks: ['absent', 'some padded'] }),
  (layer, reach) => {
    const { capacityFactor, minCapacity = 4, numExperts, skipExpert } = layer.config;
    const numReal = realTokens(layer.x.rows, layer.inputs).length;
    if (numReal < layer.x.rows) reach('padding');
    if (skipExpert && layer.x.rows > 0) reach('a skip expert');
    assert.equal(planIn(layer).capacity, capacityOf(numReal, capacityFactor!, minCapacity, numExperts));
  },
  ['padding', 'a skip expert'],
);

/** Whether an expert takes `a` before `b`: better rank, then higher p, then lower token. */
function isBefore(a: Pair, b: Pair, p: (pair: Pair) => number): boolean {
  if (a.rank !== b.rank) return a.rank < b.rank;
  return p(a) > p(b) || (p(a) === p(b) && a.token < b.token);
}

/** Every expert keeps as many as it has seats, and drops nobody who comes before one it keeps. */
function assertPriority(layer: Layer, reach: (place: string) => void): void {
  const plan = planIn(layer);
  const { probs } = reference.route(layer.x, layer.weights);
  const p = ({ token, expert }: Pair) => (probs.cols === 0 ? 1 : probs.data[token * probs.cols + expert]);
  const numSkip = layer.config.skipExpert ? 1 : 0;
  const pairs = pairsOf(plan);
  for (let e = 0; e < plan.selection.numExperts; e++) {
    const received = pairs.filter(({ expert }) => expert === e);
    const [kept, dropped] = [received.filter(pair => pair.kept), received.filter(pair => !pair.kept)];
    assert.equal(kept.length, e < numSkip ? received.length : Math.min(plan.capacity, received.length));
    for (const loser of dropped) {
      for (const winner of kept) {
        assert.ok(isBefore(winner, loser, p), `expert ${e} kept token ${winner.token}, dropped ${loser.token}`);
        if (loser.rank > winner.rank && p(loser) > p(winner)) reach('rank against probability');
        if (loser.rank !== winner.rank) continue;
        if (p(loser) === p(winner)) reach('equals');
        else reach(loser.token < winner.token ? 'probability against position' : 'probability');
      }
    }
  }
}

property(
  'D12 an expert keeps as many as it has seats, and drops nobody who comes before one it keeps',
  layers({ routers: dropping, capacities: withCapacity }),
  assertPriority,
  ['probability', 'probability against position', 'equals'],
);

property(
  'D12 a better rank goes before a higher probability',
  layers({
    routers: ['threshold', 'topk'],
    logits: ['generic', 'tied'],
    thresholds: fc.constantFrom(0.75, 0.9, 1, 2),
    masks: ['absent'],
    capacities: withCapacity.filter(({ minCapacity }) => minCapacity !== 0),
  }),
  assertPriority,
  ['rank against probability', 'probability', 'equals'],
);

property(
  'D12 a larger capacity keeps all that a smaller one kept',
  fc.tuple(layers({ routers: dropping, capacities: withCapacity }), fc.integer({ min: 0, max: 5 })),
  ([layer, minCapacity], reach) => {
    const [smaller, larger] = [planIn(layer), planIn(layer, { minCapacity })].sort((a, b) => a.capacity - b.capacity);
    if (larger.tokenIndex.length > smaller.tokenIndex.length) reach('more kept');
    smaller.kept.forEach((kept, pair) => {
      assert.ok(larger.kept[pair] >= kept, `pair ${pair}`);
    });
  },
  ['more kept'],
);

property(
  'D13 capacity never changes what is selected: a dropped pair goes nowhere else',
  layers({ routers: dropping, capacities: withCapacity }),
  (layer, reach) => {
    const [tight, free] = [planIn(layer), planIn(layer, { capacityFactor: null })];
    if (tight.kept.includes(0)) reach('drops');
    assert.deepEqual(tight.selection, free.selection);
    const keptPairs = pairsOf(tight).filter(({ kept }) => kept);
    assert.equal(tight.tokenIndex.length, keptPairs.length);
  },
  ['drops'],
);

property(
  'D14 without a capacity all is kept, and the capacity said is the largest count of a real expert',
  layers({ capacities: noDrop }),
  layer => {
    const plan = planIn(layer);
    const counts = Array(plan.selection.numExperts).fill(0);
    for (const { expert, kept } of pairsOf(plan)) {
      assert.ok(kept);
      counts[expert]++;
    }
    assert.equal(plan.capacity, Math.max(...counts.slice(layer.config.skipExpert ? 1 : 0)));
  },
);

property(
  'D14 dense mode and the balanced assignment keep all under any capacity',
  layers({ routers: ['dense', 'base_train'], capacities: withCapacity }),
  (layer, reach) => {
    const plan = planIn(layer);
    if (plan.tokenIndex.length > 0) reach('pairs');
    assert.ok(!plan.kept.includes(0));
    assert.deepEqual(plan, planIn(layer, { capacityFactor: null }));
  },
  ['pairs'],
);

property(
  'D15 padding takes no seat: the plan is that of the real tokens alone',
  layers({ masks: ['some padded', 'some padded', 'all padded'] }),
  (layer, reach) => {
    const real = realTokens(layer.x.rows, layer.inputs);
    const plan = planIn(layer);
    const alone = planIn(takeTokens(layer, real));
    if (alone.kept.includes(0) && real.length < layer.x.rows) reach('drops beside padding');
    assert.equal(plan.capacity, alone.capacity);
    assertSame(plan.kept, alone.kept, 'kept');
    assertSame(plan.expertOffsets, alone.expertOffsets, 'expertOffsets');
    assertSame(
      plan.tokenIndex,
      Array.from(alone.tokenIndex, t => real[t]),
      'tokenIndex',
    );
    assertSame(plan.combineWeight, alone.combineWeight, 'combineWeight', true);
  },
  ['drops beside padding'],
);

property(
  'D16 the rows are the kept pairs, by expert, then by token, each with its weight',
  layers(),
  (layer, reach) => {
    const plan = planIn(layer);
    const { selection, expertOffsets, tokenIndex, combineWeight } = plan;
    const pairs = pairsOf(plan);
    assert.equal(expertOffsets.length, selection.numExperts + 1);
    assert.deepEqual([expertOffsets[0], expertOffsets.at(-1)], [0, tokenIndex.length]);
    assert.equal(combineWeight.length, tokenIndex.length);
    for (let e = 0; e < selection.numExperts; e++) {
      const tokens = Array.from(tokenIndex.subarray(expertOffsets[e], expertOffsets[e + 1]));
      assert.ok(expertOffsets[e] <= expertOffsets[e + 1]);
      assert.ok(
        tokens.every((t, i) => i === 0 || tokens[i - 1] < t),
        `tokens of expert ${e}: ${tokens}`,
      );
      const keptTokens = pairs.filter(({ expert, kept }) => expert === e && kept);
      assert.deepEqual(
        tokens,
        keptTokens.map(({ token }) => token),
      );
      if (tokens.length === 0 && tokenIndex.length > 0) reach('an expert without tokens');
    }
    const table = weightTable(plan);
    for (let t = 0; t < layer.x.rows; t++) {
      const allowed = layer.config.router === 'hash' ? 0 : probabilityError(plainLogits(layer, t), layer.x.cols);
      const plain = plainWeights(layer, t);
      for (const { expert, kept } of pairs.filter(({ token }) => token === t)) {
        const expected = kept ? plain[expert] : 0;
        assertWithin(table[t][expert], expected, allowed * expected + TINY, `weight of [${t}, ${expert}]`);
      }
    }
  },
  ['an expert without tokens'],
);

property(
  'D10 a skip expert is never full, and takes no seat of the real ones',
  layers({ routers: dropping, capacities: withCapacity, skipExpert: true }),
  (layer, reach) => {
    const plan = planIn(layer);
    const skipped = pairsOf(plan).filter(({ expert }) => expert === 0);
    if (skipped.length > plan.capacity) reach('more tokens than seats');
    assert.ok(skipped.every(({ kept }) => kept));
    assert.equal(plan.expertOffsets[1], skipped.length);
  },
  ['more tokens than seats'],
);

property(
  'C1 the weights that a softmax router keeps sum to at most 1',
  layers({ routers: ['threshold', 'dense', 'topk', 'switch'] }),
  (layer, reach) => {
    const plan = planIn(layer);
    weightTable(plan).forEach((weights, t) => {
      const sum = weights.reduce((a, b) => a + b, 0);
      assert.ok(sum <= 1 + 2 * plan.selection.numExperts * U, `token ${t}: ${sum}`);
      if (sum > 0 && sum < 0.99) reach('less than 1');
      if (expertsOf(plan, t).length > 1) reach('several');
    });
  },
  ['less than 1', 'several'],
);
