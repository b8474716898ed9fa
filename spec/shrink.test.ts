/** Shrinking: from a large call to the smallest that shows a fault whose minimum is known. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { forward, reference, type Trace } from 'xmoe';
import { drawRecipe, layerOf, layerOfSizes, type Recipe } from 'xmoe/cases';
import { type LayerCall, shrink } from 'xmoe/oracle';

const limits = { runs: 3000, ms: 60_000 };

function traceOf({ x, weights, config, inputs }: LayerCall): Trace {
  return forward(reference, x, weights, config, inputs);
}

function sizesOf({ x, weights, config }: LayerCall): number[] {
  return [x.rows, config.numExperts, x.cols, weights.up[0].rows];
}

interface Known {
  readonly from: readonly [T: number, E: number, d: number, m: number];
  readonly more?: Partial<Recipe>;
  readonly shows: (call: LayerCall) => boolean;
  readonly smallest: readonly [T: number, E: number, d: number, m: number];
}

const dropped = (call: LayerCall) => traceOf(call).plan.kept.includes(0);

const known: Record<string, Known> = {
  'the 33rd token': { from: [70, 3, 4, 5], shows: ({ x }) => x.rows > 32, smallest: [33, 1, 1, 1] },
  'the 257th expert': {
    from: [5, 590, 3, 2],
    shows: ({ config }) => config.numExperts > 256,
    smallest: [0, 257, 1, 1],
  },
  'a token at an expert of index 128': {
    from: [12, 300, 4, 3],
    shows: call => {
      const { tokenIndex, expertOffsets } = traceOf(call).plan;
      return tokenIndex.length > expertOffsets[128];
    },
    smallest: [1, 129, 1, 1],
  },
  'a fifth vector of d, and m odd': {
    from: [9, 7, 19, 17],
    shows: ({ x, weights }) => x.cols > 16 && weights.up[0].rows % 2 === 1,
    smallest: [0, 1, 17, 1],
  },
  'd a multiple of 4': { from: [4, 4, 12, 5], shows: ({ x }) => x.cols % 4 === 0, smallest: [0, 1, 4, 1] },
  'a drop': {
    from: [19, 6, 5, 4],
    more: { capacity: { capacityFactor: 0.5, minCapacity: 1 }, skipExpert: true, mask: 'some padded' },
    shows: dropped,
    smallest: [1, 1, 1, 1],
  },
  'a drop where something is kept': {
    from: [19, 6, 5, 4],
    more: { capacity: { capacityFactor: 0.5, minCapacity: 1 } },
    shows: call => dropped(call) && traceOf(call).plan.kept.includes(1),
    smallest: [2, 1, 1, 1],
  },
  'padding behind a token': {
    from: [15, 4, 4, 4],
    more: { mask: 'some padded' },
    shows: ({ inputs }) => /1.*0/.test(inputs.tokenMask?.join('') ?? ''),
    smallest: [2, 1, 1, 1],
  },
  'balanced assignment to three experts': {
    from: [6, 7, 5, 3],
    more: { router: 'base_train', mask: 'some padded', logits: 'tied' },
    shows: call =>
      call.config.router === 'base_train' && call.config.numExperts >= 3 && traceOf(call).plan.tokenIndex.length > 3,
    smallest: [4, 4, 1, 1],
  },
  'hash to the third expert': {
    from: [17, 9, 3, 3],
    more: { router: 'hash' },
    shows: ({ inputs }) => inputs.tokenIds?.some(id => inputs.hashTable![id] === 2) ?? false,
    smallest: [1, 3, 1, 1],
  },
};

for (const [what, { from, more, shows, smallest }] of Object.entries(known)) {
  test(`shrinking finds the smallest call with ${what}`, async () => {
    let tried = 0;
    const call = layerOfSizes(...from, more);
    assert.ok(shows(call), 'the call to begin with must show it');
    const counted = (candidate: LayerCall) => {
      tried++;
      return shows(candidate);
    };
    const found = await shrink(call, counted, limits);
    assert.deepEqual(sizesOf(found), smallest);
    assert.ok(shows(found));
    assert.ok(tried < 1500, `${tried} calls tried`);
  });
}

test('shrinking drops options and rounds numbers that the fault does not need', async () => {
  const call = layerOfSizes(9, 5, 6, 4, { mask: 'all real', skipExpert: true, auxLossCoef: 0.01 });
  const found = await shrink(call, ({ x, weights }) => x.rows > 0 && weights.downBias !== undefined, limits);
  assert.deepEqual(found.config, {
    numExperts: 1,
    router: 'dense',
    capacityFactor: null,
    activation: 'relu',
  });
  assert.deepEqual(Object.keys(found.weights).sort(), ['down', 'downBias', 'router', 'up']);
  assert.deepEqual([found.inputs, found.gradY], [{}, undefined]);
  for (const a of [found.x, found.weights.up[0], found.weights.down[0], found.weights.downBias!]) {
    assert.deepEqual([...a.data], [0]);
  }
});

test('shrinking is repeatable, and never gives what does not show the fault', async () => {
  for (let i = 0; i < 30; i++) {
    const call = layerOf(drawRecipe(5, i));
    const pairs = (c: LayerCall) => traceOf(c).plan.tokenIndex.length;
    const wanted = Math.min(3, pairs(call));
    const shows = (c: LayerCall) => pairs(c) >= wanted;
    const [one, other] = [await shrink(call, shows, limits), await shrink(call, shows, limits)];
    assert.deepEqual(one, other);
    assert.ok(shows(one));
    assert.ok(sizesOf(one).every((size, k) => size <= sizesOf(call)[k]));
  }
});

test('shrinking a square router finds the one expert that the fault needs, wherever it is', async () => {
  const [numExperts, dFf] = [9, 3];
  for (let e = 0; e < numExperts; e++) {
    const call = layerOfSizes(2, numExperts, numExperts, dFf);
    const needed = call.weights.upBias!.data[e * dFf];
    const shows = ({ x, config, weights }: LayerCall) =>
      x.cols === config.numExperts && weights.upBias?.data.includes(needed) === true;
    assert.deepEqual(sizesOf(await shrink(call, shows, limits)), [0, 1, 1, 1]);
  }
});

test('shrinking stops at its limits', async () => {
  let tried = 0;
  const shows = () => ++tried > 0;
  await shrink(layerOfSizes(9, 5, 6, 4), shows, { runs: 7, ms: 60_000 });
  assert.equal(tried, 7);
  const stop = new AbortController();
  stop.abort();
  const call = layerOfSizes(9, 5, 6, 4);
  assert.equal(await shrink(call, () => true, { ...limits, signal: stop.signal }), call);
});
