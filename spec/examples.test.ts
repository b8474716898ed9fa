/** The example of every rule in SEMANTICS.md, worked by hand there, in its order. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  activations,
  backward,
  balancedAssignment,
  type Config,
  capacityOf,
  denseFlops,
  dispatch,
  forward,
  loadBalancingLoss,
  loadBalancingLossBackward,
  type Matrix,
  marginsOf,
  type Routing,
  reference,
  route,
  routers,
  runExperts,
  type Selection,
  selectExceed,
  selectThreshold,
  selectWithin,
  softmax,
  type Weights,
} from 'xmoe';

const matrix = (...list: number[][]): Matrix => ({
  rows: list.length,
  cols: list[0]?.length ?? 0,
  data: Float64Array.from(list.flat()),
});

/** The experts of each token, best first. */
function chosen({ numTokens, tokenOffsets, expertIndex }: Selection): number[][] {
  return Array.from({ length: numTokens }, (_, t) => [...expertIndex.subarray(tokenOffsets[t], tokenOffsets[t + 1])]);
}

const base: Config = { router: 'threshold', numExperts: 2, threshold: 0.9, capacityFactor: null, activation: 'relu' };

/** A routing of the given probabilities; its logits are their logarithms. */
function routingOf(...probs: number[][]): Routing {
  return { logits: matrix(...probs.map(p => p.map(Math.log))), probs: matrix(...probs) };
}

/** E experts of width 1 on one feature: out_e = factors[e] · relu(x) + biases[e]; Wr = 0 unless given. */
function tinyExperts(factors: number[], router: number[] = factors.map(() => 0), biases?: number[]): Weights {
  return {
    router: matrix(...router.map(r => [r])),
    up: factors.map(() => matrix([1])),
    down: factors.map(f => matrix([f])),
    ...(biases && { downBias: matrix(...biases.map(b => [b])) }),
  };
}

const close = (actual: number, expected: number) =>
  assert.ok(Math.abs(actual - expected) <= 1e-15 * Math.abs(expected), `${actual}, not ${expected}`);

test('R1 logits are x Wrᵀ, without a bias', () => {
  const weights = { ...tinyExperts([1, 1]), router: matrix([3, 4], [5, -6]) };
  assert.deepEqual([...route(matrix([1, 2]), weights).logits.data], [11, -7]);
});

test('R2 probabilities are a softmax that neither overflows nor minds a constant', () => {
  const [p0, p1] = softmax(matrix([0, Math.log(3)])).data;
  close(p0, 1 / 4);
  close(p1, 3 / 4);
  assert.deepEqual([...softmax(matrix([-1000, -1000])).data], [0.5, 0.5]);
  assert.deepEqual([...softmax(matrix([0, -1000])).data], [1, 0]);
});

test('R3 a padded token takes no capacity and has y = 0', () => {
  const config = { ...base, threshold: 0, capacityFactor: 1, minCapacity: 1 };
  const trace = forward(reference, matrix([1], [1]), tinyExperts([2, 2]), config, { tokenMask: Uint8Array.of(1, 0) });
  assert.equal(trace.plan.capacity, 1);
  assert.deepEqual([...trace.plan.tokenIndex], [0]);
  assert.deepEqual([...trace.y.data], [1, 0]); // p = 1/2
});

test('R4 a NaN is refused by name and place', () => {
  const weights = {
    ...tinyExperts([1, 1]),
    router: matrix([3, 4], [5, -6]),
    up: [matrix([1, 1]), matrix([1, 1])],
    down: [matrix([1], [1]), matrix([1], [1])],
  };
  assert.throws(() => forward(reference, matrix([1, Number.NaN]), weights, base), {
    name: 'RangeError',
    message: '"x" expected finite values, got NaN at [0, 1]',
  });
});

test('D1 equal probabilities: the lower index first', () => {
  assert.deepEqual(chosen(selectThreshold(matrix([0.2, 0.4, 0.4]), 2)), [[1, 2, 0]]);
});

test('D2 the smallest prefix whose mass reaches the threshold', () => {
  const probs = matrix([0.5, 0.25, 0.125, 0.125]);
  assert.deepEqual(chosen(selectThreshold(probs, 0.75)), [[0, 1]]);
  assert.deepEqual(chosen(selectThreshold(probs, 0.76)), [[0, 1, 2]]);
});

test('D3 thresholds below, at and above 1', () => {
  const probs = matrix([1, 0, 0]);
  assert.deepEqual(chosen(selectThreshold(probs, -1)), [[0]]);
  assert.deepEqual(chosen(selectThreshold(probs, 1)), [[0]]);
  assert.deepEqual(chosen(selectThreshold(probs, 1.5)), [[0, 1, 2]]);
});

test('D4 exceed and within differ from XMoE', () => {
  const probs = matrix([0.5, 0.25, 0.25]);
  const all = (threshold: number) =>
    [selectThreshold, selectExceed, selectWithin].map(f => chosen(f(probs, threshold))[0]);
  assert.deepEqual(all(0.5), [[0], [0, 1], [0]]);
  assert.deepEqual(all(0.6), [[0, 1], [0, 1], [0]]);
});

test('D5 dense mode takes every expert, whatever the capacity', () => {
  const config: Config = { ...base, router: 'dense', threshold: 0, capacityFactor: 0, minCapacity: 0 };
  const plan = dispatch(routingOf([0.25, 0.75]), {}, config);
  assert.deepEqual(chosen(plan.selection), [[1, 0]]);
  assert.deepEqual([...plan.kept], [1, 1]);
});

test('D6 top-k forces the best expert and lets noise choose the rest', () => {
  const logits = matrix([3, 2, 1]);
  const routing = { logits, probs: softmax(logits) };
  const config: Config = { ...base, router: 'topk', numExperts: 3, topK: 2 };
  assert.deepEqual(chosen(dispatch(routing, { noise: matrix([0, 0, 5]) }, config).selection), [[0, 2]]);
  assert.deepEqual(chosen(dispatch(routing, {}, config).selection), [[0, 1]]);
  assert.deepEqual(chosen(dispatch(routing, { noise: matrix([-9, 0, 0]) }, config).selection), [[0, 1]]);
  assert.deepEqual(chosen(dispatch(routing, { noise: matrix([0, 0, 5]) }, { ...config, router: 'switch' }).selection), [
    [0],
  ]);
});

test('D7 hash looks the expert up by token id', () => {
  const config: Config = { ...base, router: 'hash', numExperts: 3 };
  const none = { rows: 3, cols: 0, data: new Float64Array(0) };
  const inputs = { hashTable: Int32Array.of(2, 0), tokenIds: Int32Array.of(1, 0, 1) };
  const plan = dispatch({ logits: none, probs: none }, inputs, config);
  assert.deepEqual(chosen(plan.selection), [[0], [2], [0]]);
  assert.deepEqual([...plan.combineWeight], [1, 1, 1]);
});

test('D8 BASE at evaluation takes the best logit, weighted by its sigmoid', () => {
  const logits = matrix([-1, 0]);
  const plan = dispatch({ logits, probs: softmax(logits) }, {}, { ...base, router: 'base_eval' });
  assert.deepEqual(chosen(plan.selection), [[1]]);
  assert.deepEqual([...plan.combineWeight], [0.5]);
});

test('D9 BASE in training balances, and is not greedy', () => {
  const logits = matrix([5, 4], [5, 1]);
  assert.deepEqual([...balancedAssignment(logits)], [1, 0]);
  const plan = dispatch({ logits, probs: softmax(logits) }, {}, { ...base, router: 'base_train' });
  assert.deepEqual(chosen(plan.selection), [[1], [0]]);
});

test('D10 the skip expert adds nothing', () => {
  const config = { ...base, skipExpert: true, threshold: 0.5 };
  const weights = tinyExperts([7, 7], [Math.log(6), Math.log(3), 0]);
  const trace = forward(reference, matrix([1]), weights, config);
  assert.deepEqual(chosen(trace.plan.selection), [[0]]);
  close(trace.plan.combineWeight[0], 0.6);
  assert.deepEqual([...trace.y.data], [0]);
  assert.equal(trace.cost.experts, 0);
});

test('D11 capacity rounds up, and is at most the tokens there are', () => {
  assert.equal(capacityOf(30, 1.25, 1, 7), 6);
  assert.equal(capacityOf(3, 0.1, 4, 8), 3);
});

/** Four tokens that want expert 0, at rank 1, 0, 0 and 0; it takes two. */
const crowd = routingOf([0.45, 0.55], [0.3, 0.2], [0.4, 0.2], [0.3, 0.2]);
const crowded = { ...base, threshold: 0.6, capacityFactor: 1, minCapacity: 0 };

test('D12 rank first, then probability, then the lower token', () => {
  const { selection, kept, capacity, tokenIndex, expertOffsets } = dispatch(crowd, {}, crowded);
  assert.equal(capacity, 2);
  assert.deepEqual(chosen(selection).slice(0, 2), [
    [1, 0],
    [0, 1],
  ]);
  assert.deepEqual([...tokenIndex.subarray(0, expertOffsets[1])], [1, 2]);
  assert.equal(kept[1], 0); // token 0, though most probable
});

test('D13 a dropped token is not re-routed', () => {
  const config = { ...base, threshold: 0, capacityFactor: 0, minCapacity: 1 };
  const trace = forward(reference, matrix([1], [1]), tinyExperts([2, 2]), config);
  assert.deepEqual([...trace.plan.expertOffsets], [0, 1, 1]);
  assert.deepEqual([...trace.y.data], [1, 0]);
});

test('D14 no drop keeps every pair and reports the largest count', () => {
  const probs = [
    [0.9, 0.1],
    [0.9, 0.1],
    [0.9, 0.1],
    [0.1, 0.9],
  ];
  const plan = dispatch(routingOf(...probs), {}, { ...base, threshold: 0 });
  assert.deepEqual([...plan.kept], [1, 1, 1, 1]);
  assert.equal(plan.capacity, 3);
});

test('D15 a padded token leaves its place to a real one', () => {
  const config = { ...base, threshold: 0, capacityFactor: 0, minCapacity: 1 };
  const plan = dispatch(routingOf([0.9, 0.1], [0.8, 0.2]), { tokenMask: Uint8Array.of(0, 1) }, config);
  assert.deepEqual([...plan.tokenIndex], [1]);
});

test('D16 rows go by expert, then by token', () => {
  const plan = dispatch(routingOf([0.4, 0.6], [0.1, 0.9]), {}, { ...base, threshold: 0.7 });
  assert.deepEqual(chosen(plan.selection), [[1, 0], [1]]);
  assert.deepEqual([...plan.tokenIndex], [0, 0, 1]);
  assert.deepEqual([...plan.expertOffsets], [0, 1, 3]);
});

/** One expert on x = [1] that keeps its only token. */
function runOne(weights: Omit<Weights, 'router'>, activation: Config['activation']) {
  const config: Config = { ...base, numExperts: 1, activation };
  return runExperts(matrix([1]), dispatch(routingOf([1]), {}, config), { router: matrix([0]), ...weights }, config);
}

test('E1 an expert is W2 σ(W1 x + b1) + b2', () => {
  const ffn = { up: [matrix([2], [-1])], upBias: matrix([1, 0]), down: [matrix([1, 1])], downBias: matrix([0.5]) };
  const { hidden, out } = runOne(ffn, 'relu');
  assert.deepEqual([...hidden.data], [3, 0]);
  assert.deepEqual([...out.data], [3.5]);
});

test('E2 a gate of zero shuts a swiglu expert', () => {
  const ffn = { up: [matrix([5])], gate: [matrix([0])], down: [matrix([1])], downBias: matrix([0.25]) };
  assert.deepEqual([...runOne(ffn, 'swiglu').out.data], [0.25]);
  assert.deepEqual([...runOne(ffn, 'geglu').out.data], [0.25]);
});

test('E3 the activations, where tables have them', () => {
  assert.equal(activations.relu.apply(-0.5), 0);
  close(activations.gelu.apply(1), 0.8413447460685429); // Φ(1)
  close(activations.gelu_tanh.apply(1), 0.5 * (1 + Math.tanh(0.7978845608028654 * 1.044715)));
  assert.equal(activations.silu.apply(0), 0);
  close(activations.silu.apply(Math.log(3)), 0.75 * Math.log(3));
});

test('E4 an absent bias is no addition', () => {
  const { hidden, out } = runOne({ up: [matrix([2], [-1])], down: [matrix([1, 1])] }, 'relu');
  assert.deepEqual([...hidden.data], [2, 0]);
  assert.deepEqual([...out.data], [2]);
});

test('E5 an expert without tokens has no rows and no cost', () => {
  const trace = forward(reference, matrix([1], [1]), tinyExperts([2, 2]), { ...base, threshold: 0 });
  assert.deepEqual([...trace.plan.expertOffsets], [0, 2, 2]);
  assert.equal(trace.cost.experts, 2 * 4 * 1 * 1);
});

test('C1 weights are not renormalised', () => {
  const weights = tinyExperts([2, 4, 9], [Math.log(2), 0, 0]);
  const trace = forward(reference, matrix([1]), weights, { ...base, numExperts: 3, threshold: 0.75 });
  close(trace.y.data[0], 2);
});

test('C2 a token that lost all of its experts has y = 0', () => {
  const config = { ...base, threshold: 0, capacityFactor: 0, minCapacity: 1 };
  const weights = tinyExperts([2, 2], [0, 0], [1, 1]);
  assert.deepEqual([...forward(reference, matrix([1], [1]), weights, config).y.data], [1.5, 0]);
});

test('C3 the output bias is weighted', () => {
  const weights = { ...tinyExperts([0, 0], [0, 0], [4, 4]), up: [matrix([0]), matrix([0])] };
  assert.deepEqual([...forward(reference, matrix([1]), weights, { ...base, threshold: 0 }).y.data], [2]);
});

test('C4 BASE weighs by the sigmoid, Hash not at all', () => {
  const config: Config = { ...base, numExperts: 1, router: 'base_eval' };
  close(forward(reference, matrix([1]), tinyExperts([1], [Math.log(3)]), config).y.data[0], 0.75);
  const hash = { ...tinyExperts([3]), router: { rows: 0, cols: 1, data: new Float64Array(0) } };
  const inputs = { hashTable: Int32Array.of(0), tokenIds: Int32Array.of(0) };
  assert.deepEqual([...forward(reference, matrix([1]), hash, { ...config, router: 'hash' }, inputs).y.data], [3]);
});

test('L1 the loss of two tokens', () => {
  assert.equal(loadBalancingLoss(matrix([0.75, 0.25], [0.75, 0.25])), 1.5);
});

test('L2 balance is 1, collapse is E', () => {
  assert.equal(loadBalancingLoss(matrix([1, 0], [0, 1])), 1);
  assert.equal(loadBalancingLoss(matrix([1, 0], [1, 0])), 2);
  assert.equal(loadBalancingLoss({ rows: 0, cols: 2, data: new Float64Array(0) }), 0);
});

test('L3 drops do not change the loss, and the counts are constants', () => {
  const config = { ...base, capacityFactor: 0, minCapacity: 1 };
  const trace = forward(reference, matrix([1], [1]), tinyExperts([1, 1], [Math.log(3), 0]), config);
  close(trace.loadBalancingLoss, 1.5);
  assert.deepEqual([...loadBalancingLossBackward(matrix([0.75, 0.25], [0.75, 0.25])).data], [1, 0, 1, 0]);
});

test('L4 the skip column counts; Hash and BASE have no loss', () => {
  const skip = forward(reference, matrix([1]), tinyExperts([1, 1], [0, -1000, -1000]), { ...base, skipExpert: true });
  assert.equal(skip.loadBalancingLoss, 3);
  const bases = forward(reference, matrix([1]), tinyExperts([1, 1]), { ...base, router: 'base_eval' });
  assert.equal(bases.loadBalancingLoss, 0);
  assert.deepEqual(
    Object.keys(routers).filter(name => !routers[name as Config['router']].balanced),
    ['hash', 'base_eval', 'base_train'],
  );
});

/** The gradients of y ⊙ 1 for one token. */
function gradientsOf(x: number, weights: Weights, config: Config, inputs = {}) {
  const trace = forward(reference, matrix([x]), weights, config, inputs);
  return backward(trace, matrix([x]), weights, config, matrix([1]), inputs);
}

test('G1 an expert that is not selected gets no gradient', () => {
  const { weights } = gradientsOf(3, tinyExperts([2 / 3, 100]), { ...base, threshold: 0 });
  assert.deepEqual([...weights.down[1].data, ...weights.up[1].data], [0, 0]);
});

test('G2 the weight passes its gradient through the softmax to Wr', () => {
  const { weights } = gradientsOf(3, tinyExperts([2 / 3, 100]), { ...base, threshold: 0 });
  assert.deepEqual([...weights.router.data], [1.5, -1.5]);
});

test('G3 through the expert to its weights and x', () => {
  const weights = { router: matrix([0]), up: [matrix([2])], down: [matrix([3])] };
  const grad = gradientsOf(1, weights, { ...base, numExperts: 1 });
  assert.deepEqual([...grad.weights.down[0].data, ...grad.weights.up[0].data, ...grad.x.data], [2, 3, 6]);
});

test('G4 BASE passes its gradient through the sigmoid', () => {
  const { weights } = gradientsOf(1, tinyExperts([2]), { ...base, numExperts: 1, router: 'base_eval' });
  assert.deepEqual([...weights.router.data], [0.5]);
});

test('G5 Hash has no router to give a gradient to', () => {
  const hash = { ...tinyExperts([3]), router: { rows: 0, cols: 1, data: new Float64Array(0) } };
  const inputs = { hashTable: Int32Array.of(0), tokenIds: Int32Array.of(0) };
  const grad = gradientsOf(1, hash, { ...base, numExperts: 1, router: 'hash' }, inputs);
  assert.equal(grad.weights.router.rows, 0);
  assert.deepEqual([...grad.x.data], [3]);
});

test('G6 a dropped token has no gradient', () => {
  const config = { ...base, threshold: 0, capacityFactor: 0, minCapacity: 1 };
  const [x, weights] = [matrix([1], [1]), tinyExperts([2, 2])];
  const grad = backward(forward(reference, x, weights, config), x, weights, config, matrix([1], [1]));
  assert.deepEqual([...grad.x.data], [1, 0]);
});

test('G7 relu has slope 0 at 0', () => {
  const weights = { router: matrix([0]), up: [matrix([2])], down: [matrix([3])] };
  const grad = gradientsOf(0, weights, { ...base, numExperts: 1 });
  assert.deepEqual([...grad.weights.up[0].data, ...grad.x.data], [0, 0]);
});

test('M1 threshold margins up to the first rejected rank', () => {
  const config = { ...base, numExperts: 3, threshold: 0.75 };
  const routing = routingOf([0.5, 0.25, 0.25]);
  const margins = marginsOf(routing, dispatch(routing, {}, config), config).filter(m => m.kind === 'threshold');
  assert.deepEqual(
    margins.map(({ rank, expert, value }) => [rank, expert, value]),
    [
      [1, 1, 0.25],
      [2, 2, 0],
    ],
  );
});

test('M2 order margins of the first choice and of the selected set', () => {
  const config = { ...base, numExperts: 3, threshold: 0.6 };
  const routing = routingOf([0.5, 0.3, 0.2]);
  const margins = marginsOf(routing, dispatch(routing, {}, config), config).filter(m => m.kind === 'order');
  assert.deepEqual(
    margins.map(m => [m.of, m.rank, m.expert, m.nextExpert, m.value]),
    [
      ['probs', 0, 0, 1, 0.5 - 0.3],
      ['probs', 1, 1, 2, 0.3 - 0.2],
    ],
  );
});

test('M3 the capacity margin of a tie is 0', () => {
  const margins = marginsOf(crowd, dispatch(crowd, {}, crowded), crowded);
  const ofExpert0 = margins.filter(({ kind, expert }) => kind === 'capacity' && expert === 0);
  assert.deepEqual(ofExpert0, [{ kind: 'capacity', token: 1, droppedToken: 3, rank: 0, expert: 0, value: 0 }]);
});

test('S1 the statistics of four tokens', () => {
  const config = { ...base, threshold: 0, capacityFactor: 0, minCapacity: 1 };
  const x = matrix([1], [1], [1], [-1]);
  const { statistics } = forward(reference, x, tinyExperts([1, 1], [1, 0]), config);
  assert.deepEqual(statistics, {
    selectedPerToken: 1,
    keptPerToken: 0.5,
    tokensWithDrop: 0.5,
    tokensWithoutFirst: 0.5,
    expertsNotFull: 0,
    tokensPerExpert: Float64Array.of(0.75, 0.25),
    top1Variation: 0.5,
    hiddenActive: 0.5, // relu(1) of expert 0, relu(−1) of expert 1
  });
});

test('S2 the FLOPs of a call and of the dense FFN', () => {
  const filled = (rows: number, cols: number, value: number): Matrix => ({
    rows,
    cols,
    data: new Float64Array(rows * cols).fill(value),
  });
  const weights = {
    router: matrix([1, 0, 0], [0.5, 0, 0], [0, 0, 0], [0, 0, 0]),
    up: Array.from({ length: 4 }, () => filled(5, 3, 1)),
    down: Array.from({ length: 4 }, () => filled(3, 5, 1)),
  };
  // token 0 is sure of expert 0; token 1 has p = ¼ for all and takes two
  const config = { ...base, numExperts: 4, threshold: 0.5 };
  const { cost } = forward(reference, matrix([9, 0, 0], [0, 0, 0]), weights, config);
  assert.deepEqual(cost, { router: 48, experts: 180, total: 228 });
  assert.equal(denseFlops(2, 3, 20), 480);
});
