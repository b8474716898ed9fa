/** The whole layer: what stays when the call changes. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { backward, type Config, forward, type Matrix, marginsOf, reference, routers, type Trace } from 'xmoe';
import { shuffled, uniform } from 'xmoe/cases';
import { type Layer, layers, noDrop, routerNames, softmaxRouters, withCapacity } from 'xmoe/spec';
import { assertMatrixWithin, assertSame, assertWithin, TINY, U } from './close.js';
import { expertError, keptIn, plainExpert, plainLogits, plainY, probabilityError, yError } from './plain.js';
import { property } from './property.js';
import { expertsOf, pairsOf, realTokens, rowOf } from './tables.js';
import { reorderExperts, takeRows, takeTokens, withoutSkipping } from './transforms.js';

function traceOf({ x, weights, config, inputs }: Layer): Trace {
  return forward(reference, x, weights, config, inputs);
}

const tokenWise = routerNames.filter(router => router !== 'base_train');

/** Where the order within a rank is open, position may decide who is kept: there, nothing is dropped. */
function decidedByP(layer: Layer): Layer {
  const isOpen = routers[layer.config.router].dropOrder === 'rank';
  return isOpen ? { ...layer, config: { ...layer.config, capacityFactor: null } } : layer;
}

/** The tokens in another order: the same bits, in that order. */
function assertTokensMove(layer: Layer, seed: number, reach: (place: string) => void): void {
  const trace = traceOf(layer);
  const margins = marginsOf(trace.routing, trace.plan, layer.config, layer.inputs);
  if (margins.some(({ kind, value }) => kind === 'capacity' && value === 0)) return;
  const order = shuffled(layer.x.rows, seed);
  const moved = traceOf(takeTokens(layer, order));
  if (layer.x.rows > 2) reach('several tokens');
  if (trace.plan.kept.includes(0)) reach('drops');
  order.forEach((from, to) => {
    assertSame(expertsOf(moved.plan, to), expertsOf(trace.plan, from), `experts of token ${from}`);
  });
  assertSame(moved.routing.probs.data, takeRows(trace.routing.probs, order).data, 'probabilities', true);
  assertSame(moved.y.data, takeRows(trace.y, order).data, 'y', true);
  assert.equal(moved.plan.capacity, trace.plan.capacity);
  assert.deepEqual(moved.cost, trace.cost);
  const slack = 4 * (layer.x.rows + 4) * U;
  assertWithin(moved.loadBalancingLoss, trace.loadBalancingLoss, slack * trace.loadBalancingLoss, 'l_aux');
}

/** The experts in another order: the same decisions and, to rounding, numbers, where no margin is within rounding. */
function assertExpertsMove(layer: Layer, seed: number, reach: (place: string) => void): void {
  const trace = traceOf(layer);
  const { probs } = trace.routing;
  const margins = marginsOf(trace.routing, trace.plan, layer.config, layer.inputs);
  const errors = Array.from({ length: layer.x.rows }, (_, t) => probabilityError(plainLogits(layer, t), layer.x.cols));
  if (margins.some(({ value }) => value <= 4 * Math.max(...errors))) return;

  const numSkip = layer.config.skipExpert ? 1 : 0;
  const experts = shuffled(layer.config.numExperts, seed).map(e => e + numSkip);
  const columns = numSkip ? [0, ...experts] : experts;
  const moved = traceOf(reorderExperts(layer, columns));
  if (trace.plan.tokenIndex.length > 0) reach(layer.config.router);
  if (trace.plan.kept.includes(0)) reach('drops');
  const decisionsOf = ({ plan }: Trace, columnOf: (e: number) => number) =>
    pairsOf(plan).map(({ token, expert, kept }) => [token, columnOf(expert), kept].join());
  assert.deepEqual(decisionsOf(moved, e => columns[e]).sort(), decisionsOf(trace, e => e).sort());
  assertMatrixWithin(
    moved.routing.probs,
    (t, e) => rowOf(probs, t)[columns[e]],
    (t, e) => 2 * errors[t] * rowOf(probs, t)[columns[e]] + TINY,
    'probabilities',
  );
  const scales = plainY(layer, keptIn(trace.plan));
  const yErrors = errors.map((_, t) => yError(layer, t));
  assertMatrixWithin(
    moved.y,
    (t, c) => trace.y.data[t * trace.y.cols + c],
    (t, c) => yErrors[t] * scales[t][c].scale + TINY,
    'y',
  );
  const slack = 2 * Math.max(0, ...errors) + 4 * (columns.length + layer.x.rows) * U;
  assertWithin(moved.loadBalancingLoss, trace.loadBalancingLoss, slack * trace.loadBalancingLoss, 'l_aux');
  const shares = columns.map(e => trace.statistics.tokensPerExpert[e]);
  assertSame(moved.statistics.tokensPerExpert, shares, 'tokens per expert');
}

const dropping = {
  routers: ['threshold'] as const,
  logits: ['generic'] as const,
  capacities: withCapacity.filter(({ minCapacity }) => minCapacity !== 0),
  maxSize: 13,
  large: false,
};

property(
  'R1 tokens in another order get what they got, bit for bit',
  fc.tuple(layers({ routers: tokenWise }).map(decidedByP), fc.nat()),
  ([layer, seed], reach) => assertTokensMove(layer, seed, reach),
  ['several tokens'],
);

property(
  'D12 tokens in another order are kept or dropped as they were, where p decides',
  fc.tuple(layers(dropping), fc.nat()),
  ([layer, seed], reach) => assertTokensMove(layer, seed, reach),
  ['drops'],
);

property(
  'D1 experts in another order do what they did, where no margin is within rounding',
  fc.tuple(
    layers({
      routers: tokenWise.filter(router => router !== 'threshold'),
      logits: ['generic', 'negative', 'steep'],
      maxSize: 13,
      large: false,
    }).map(decidedByP),
    fc.nat(),
  ),
  ([layer, seed], reach) => assertExpertsMove(layer, seed, reach),
  ['dense', 'topk', 'switch', 'hash', 'base_eval'],
);

property(
  'D2 D12 experts in another order are selected and keep as before, where no margin is within rounding',
  fc.tuple(layers(dropping), fc.nat()),
  ([layer, seed], reach) => assertExpertsMove(layer, seed, reach),
  ['threshold', 'drops'],
);

property(
  'C1 without drops, what a token gets and gives does not depend on its batch, bit for bit',
  fc.tuple(layers({ routers: tokenWise, capacities: noDrop }), fc.nat()),
  ([given, seed], reach) => {
    const { auxLossCoef: _, ...config } = given.config; // the loss is the batch's
    const layer: Layer = { ...given, config };
    const some = shuffled(layer.x.rows, seed).filter(t => uniform(seed, t) < 0.5);
    const fewer = takeTokens(layer, some);
    const [all, part] = [layer, fewer].map(traceOf);
    if (some.length > 0 && some.length < layer.x.rows) reach('a part');
    assertSame(part.y.data, takeRows(all.y, some).data, 'y', true);
    const gradX = ({ x, weights, inputs, gradY }: Layer, trace: Trace) =>
      backward(trace, x, weights, config, gradY, inputs).x;
    assertSame(gradX(fewer, part).data, takeRows(gradX(layer, all), some).data, '∂x', true);
  },
  ['a part'],
);

property(
  'C1 a batch of hundreds is its tokens one by one, bit for bit',
  layers({ routers: tokenWise, capacities: noDrop, masks: ['absent'], maxSize: 4, large: false }),
  (layer, reach) => {
    if (layer.x.rows === 0) return;
    const many = takeTokens(
      layer,
      [...Array(99 * layer.x.rows).keys()].map(i => i % layer.x.rows),
    );
    const [one, all] = [layer, many].map(traceOf);
    if (many.x.rows > 256) reach('more than 256');
    for (let i = 0; i < many.x.rows; i++) {
      assertSame(rowOf(all.y, i), rowOf(one.y, i % layer.x.rows), `y of token ${i}`, true);
    }
  },
  ['more than 256'],
  { share: 0.5 },
);

property(
  'R3 padding changes nothing for the real tokens and gives y = 0, whatever stands in it',
  fc.tuple(layers({ masks: ['some padded', 'some padded', 'all padded'] }), fc.constantFrom(0, 1e30, -7)),
  ([layer, content], reach) => {
    const real = realTokens(layer.x.rows, layer.inputs);
    const { cols } = layer.x;
    const filled: Matrix = {
      ...layer.x,
      data: layer.x.data.map((v: number, i: number) => (real.includes(Math.floor(i / cols)) ? v : content)),
    };
    const [trace, other, alone] = [layer, { ...layer, x: filled }, takeTokens(layer, real)].map(traceOf);
    if (real.length > 0 && real.length < layer.x.rows) reach('some padded');
    if (real.length === 0 && layer.x.rows > 0) reach('all padded');
    assertSame(other.y.data, trace.y.data, 'y with other padding', true);
    assertSame(takeRows(trace.y, real).data, alone.y.data, 'y of the real tokens', true);
    for (let t = 0; t < layer.x.rows; t++) {
      if (!real.includes(t)) assertSame(rowOf(trace.y, t), Array(cols).fill(0), `y of padded token ${t}`);
    }
    assert.deepEqual(trace.statistics, alone.statistics);
    assert.equal(trace.plan.capacity, alone.plan.capacity);
    const routing = reference.route(layer.x, layer.weights);
    assertSame(trace.routing.probs.data, routing.probs.data, 'probabilities, padding included', true);
  },
  ['some padded', 'all padded'],
);

property(
  'R4 one expert is a plain FFN with weight 1, and no token gives an empty y',
  layers({ routers: softmaxRouters, capacities: noDrop, masks: ['absent'], large: false }),
  (given, reach) => {
    const none = traceOf(takeTokens(given, []));
    assert.deepEqual([none.y.rows, none.y.cols, none.y.data.length], [0, given.x.cols, 0]);
    assert.equal(none.loadBalancingLoss, 0);

    const { skipExpert: _, ...config } = given.config;
    const { router, up, upBias, gate, gateBias, down, downBias } = given.weights;
    const layer: Layer = {
      ...given,
      config: { ...config, numExperts: 1, ...(config.topK && { topK: 1 }) },
      weights: {
        router: takeRows(router, [0]),
        up: [up[0]],
        down: [down[0]],
        ...(upBias && { upBias: takeRows(upBias, [0]) }),
        ...(gate && { gate: [gate[0]] }),
        ...(gateBias && { gateBias: takeRows(gateBias, [0]) }),
        ...(downBias && { downBias: takeRows(downBias, [0]) }),
      },
      inputs: {},
    };
    const { y, loadBalancingLoss } = traceOf(layer);
    if (layer.x.rows > 0) {
      reach('tokens');
      assert.equal(loadBalancingLoss, 1);
    }
    for (let t = 0; t < layer.x.rows; t++) {
      plainExpert(rowOf(layer.x, t), layer.weights, 0, layer.config).forEach(({ value, scale }, c) => {
        assertWithin(rowOf(y, t)[c], value, expertError(layer.weights) * scale + TINY, `y of [${t}, ${c}]`);
      });
    }
  },
  ['tokens'],
);

property(
  'D3 without drops a threshold of 0 is Switch, and one above 1 is dense mode',
  layers({ routers: ['threshold'], capacities: noDrop }),
  (layer, reach) => {
    const yOf = (change: Partial<Config>) => traceOf({ ...layer, config: { ...layer.config, ...change } }).y.data;
    if (layer.config.numExperts > 1 && layer.x.rows > 0) reach('several experts');
    assertSame(yOf({ threshold: 0 }), yOf({ router: 'switch' }), 'y at 0', true);
    assertSame(yOf({ threshold: 1.5 }), yOf({ router: 'dense' }), 'y above 1', true);
  },
  ['several experts'],
);

property(
  'D10 a skip expert adds nothing: its tokens and weights are those of an expert whose output is 0',
  layers({ routers: [...softmaxRouters, 'hash', 'base_eval'], skipExpert: true, capacities: noDrop }),
  (layer, reach) => {
    const [skipping, computing] = [layer, withoutSkipping(layer)].map(traceOf);
    if (skipping.plan.expertOffsets[1] > 0) reach('skipped tokens');
    assertSame(skipping.y.data, computing.y.data, 'y');
    assertSame(skipping.plan.combineWeight, computing.plan.combineWeight, 'weights', true);
  },
  ['skipped tokens'],
);

/** Every array of numbers in a value, however deep. */
function arraysIn(value: unknown): ArrayLike<number>[] {
  if (ArrayBuffer.isView(value)) return [value as unknown as Float64Array];
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(arraysIn) : [];
}

/** All arrays of two values of one structure, bit for bit. */
function assertSameBits(actual: unknown, expected: unknown, what: string): void {
  const arrays = arraysIn(actual);
  arraysIn(expected).forEach((array, i) => {
    assertSame(arrays[i], array, `array ${i} of ${what}`, true);
  });
}

property(
  'A call and its backward leave what they are given as it was, and give the same bits again',
  layers(),
  (layer, reach) => {
    const { x, weights, config, inputs, gradY } = layer;
    const given = structuredClone({ x, weights, config, inputs, gradY });
    const trace = traceOf(layer);
    const first = structuredClone(trace);
    const gradients = backward(trace, x, weights, config, gradY, inputs);
    assertSameBits(trace, first, 'the trace, after its backward');
    assertSameBits({ x, weights, config, inputs, gradY }, given, 'what was given');
    assert.deepEqual(config, given.config);

    const second = traceOf(layer);
    assertSameBits(second, trace, 'the second trace');
    const again = backward(second, x, weights, config, gradY, inputs);
    assertSameBits(again, gradients, 'the second gradients');
    assertSame([again.loss, second.loadBalancingLoss], [gradients.loss, trace.loadBalancingLoss], 'losses', true);
    assert.deepEqual([second.statistics, second.cost], [trace.statistics, trace.cost]);
    if (trace.plan.tokenIndex.length > 0) reach('rows');
  },
  ['rows'],
);
