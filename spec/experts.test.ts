/** Rules E1-E5: what an expert computes. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type DispatchPlan, forward, type Matrix, reference, type Weights } from 'xmoe';
import { matrixOf } from 'xmoe/cases';
import { activationNames, type Layer, layers, noDrop } from 'xmoe/spec';
import { assertMatrixWithin, assertSame, assertWithin, TINY } from './close.js';
import { expertError, hiddenError, plainExpert, plainHidden, plainPreActivations } from './plain.js';
import { property } from './property.js';
import { rowOf } from './tables.js';

function expertsIn({ x, weights, inputs, config }: Layer) {
  const plan = reference.dispatch(reference.route(x, weights), inputs, config);
  return { plan, ...reference.runExperts(x, plan, weights, config) };
}

/** Each row of a plan with its column of logits. */
function* rowsOf({ expertOffsets, tokenIndex }: DispatchPlan) {
  for (let column = 0; column + 1 < expertOffsets.length; column++) {
    for (let i = expertOffsets[column]; i < expertOffsets[column + 1]; i++) yield { i, column, token: tokenIndex[i] };
  }
}

property(
  'E1 every row is the FFN of its own expert applied to its own token',
  layers({ routers: ['threshold', 'dense', 'topk', 'hash'] }),
  (layer, reach) => {
    const { x, weights, config } = layer;
    const { plan, hidden, out } = expertsIn(layer);
    const numSkip = config.skipExpert ? 1 : 0;
    assert.deepEqual([hidden.rows, hidden.cols], [plan.tokenIndex.length, weights.up[0].rows]);
    assert.deepEqual([out.rows, out.cols], [plan.tokenIndex.length, x.cols]);
    for (const { i, column, token } of rowsOf(plan)) {
      if (column < numSkip) {
        assert.ok([...rowOf(hidden, i), ...rowOf(out, i)].every(value => value === 0));
        reach('a skip expert');
        continue;
      }
      reach(config.activation);
      const e = column - numSkip;
      const given = rowOf(x, token);
      plainHidden(given, weights, e, config).forEach(({ value, scale }, j) => {
        const allowed = hiddenError(weights) * scale + TINY;
        assertWithin(hidden.data[i * hidden.cols + j], value, allowed, `hidden ${j} of token ${token}, expert ${e}`);
      });
      plainExpert(given, weights, e, config).forEach(({ value, scale }, c) => {
        const allowed = expertError(weights) * scale + TINY;
        assertWithin(out.data[i * out.cols + c], value, allowed, `out ${c} of token ${token}, expert ${e}`);
      });
    }
    if (plan.tokenIndex.length > 0 && x.cols > 16 && hidden.cols > 1) reach('a fifth vector of x');
    if (plan.tokenIndex.length > 0 && hidden.cols > 16) reach('a fifth vector of hidden');
    if (plan.tokenIndex.length > 32) reach('more than 32 rows');
  },
  [...activationNames, 'a skip expert', 'a fifth vector of x', 'a fifth vector of hidden', 'more than 32 rows'],
);

property(
  'E1 a row does not depend on the other rows, bit for bit',
  layers({ routers: ['threshold', 'dense', 'topk', 'hash'] }),
  ({ x, weights, inputs, config }, reach) => {
    const plan = reference.dispatch(reference.route(x, weights), inputs, config);
    const { out } = reference.runExperts(x, plan, weights, config);
    for (const { i, column, token } of [...rowsOf(plan)].slice(0, 12)) {
      const expertOffsets = plan.expertOffsets.map((_, e) => (e > column ? 1 : 0));
      const alone: DispatchPlan = {
        ...plan,
        expertOffsets,
        tokenIndex: Int32Array.of(token),
        combineWeight: Float64Array.of(1),
      };
      assertSame(rowOf(reference.runExperts(x, alone, weights, config).out, 0), rowOf(out, i), `row ${i} alone`, true);
      if (plan.expertOffsets[column + 1] - plan.expertOffsets[column] >= 4) reach('in a tile');
    }
  },
  ['in a tile'],
  { share: 0.5 },
);

/** A dense FFN of width E·m: its hidden units are dealt out to E experts of width m. */
interface Split {
  readonly dense: { readonly up: Matrix; readonly upBias: Matrix; readonly down: Matrix; readonly downBias: Matrix };
  readonly layer: Layer;
}

/** The output bias goes to the first expert. */
function split(layer: Layer): Split {
  const { weights, config } = layer;
  const { rows: dFf, cols: dModel } = weights.up[0];
  const { numExperts } = config;
  const at = (a: Matrix, i: number, j: number) => a.data[i * a.cols + j];
  const upBias = weights.upBias ?? matrixOf(numExperts, dFf, () => 0);
  const bias = rowOf(weights.downBias ?? matrixOf(1, dModel, () => 0.5), 0);
  const downBias = matrixOf(numExperts, dModel, (e, c) => (e === 0 ? bias[c] : 0));
  const dense = {
    up: matrixOf(numExperts * dFf, dModel, (i, k) => at(weights.up[Math.floor(i / dFf)], i % dFf, k)),
    upBias: matrixOf(1, numExperts * dFf, (_, i) => upBias.data[i]),
    down: matrixOf(dModel, numExperts * dFf, (c, i) => at(weights.down[Math.floor(i / dFf)], c, i % dFf)),
    downBias: matrixOf(1, dModel, (_, c) => bias[c]),
  };
  return { dense, layer: { ...layer, weights: { ...weights, upBias, downBias } } };
}

property(
  'E1 a dense FFN split into experts is itself, when every expert is taken with weight 1',
  layers({
    routers: ['dense'],
    activations: ['relu', 'gelu', 'gelu_tanh', 'silu'],
    skipExpert: false,
    masks: ['absent'],
    large: false,
  }).map(split),
  ({ dense, layer: { x, weights, config, inputs } }, reach) => {
    const taken = reference.dispatch(reference.route(x, weights), inputs, config);
    const plan = { ...taken, combineWeight: taken.combineWeight.map(() => 1) };
    const y = reference.combine(reference.runExperts(x, plan, weights, config).out, plan);
    if (config.numExperts > 1 && x.rows > 0) reach('several experts');
    const oneExpert: Weights = {
      router: weights.router,
      up: [dense.up],
      upBias: dense.upBias,
      down: [dense.down],
      downBias: dense.downBias,
    };
    const expected = Array.from({ length: x.rows }, (_, t) => plainExpert(rowOf(x, t), oneExpert, 0, config));
    const allowed = 2 * expertError(oneExpert);
    assertMatrixWithin(
      y,
      (t, c) => expected[t][c].value,
      (t, c) => allowed * expected[t][c].scale + TINY,
      'y',
    );
  },
  ['several experts'],
);

property(
  'E2 a gated expert is linear in what it gates, and its gate alone is activated',
  layers({ routers: ['dense', 'hash'], activations: ['swiglu', 'geglu'], large: false }),
  (layer, reach) => {
    const { weights } = layer;
    const doubled = (a: Matrix): Matrix => ({ ...a, data: a.data.map((value: number) => 2 * value) });
    const twice: Weights = {
      ...weights,
      up: weights.up.map(doubled),
      ...(weights.upBias && { upBias: doubled(weights.upBias) }),
    };
    const [once, double] = [weights, twice].map(some => expertsIn({ ...layer, weights: some }).hidden);
    if (once.data.some((h: number) => h < 0)) reach('negative hidden activations');
    assertSame(double.data, doubled(once).data, 'hidden for doubled up weights');
  },
  ['negative hidden activations'],
);

const biasNames = ['upBias', 'gateBias', 'downBias'] as const;

property(
  'E4 an absent bias is a bias of zeros',
  layers({ capacities: noDrop }),
  (layer, reach) => {
    const { weights, config } = layer;
    const gated = weights.gate !== undefined;
    const { rows: dFf, cols: dModel } = weights.up[0];
    const absent = biasNames.filter(name => weights[name] === undefined && (name !== 'gateBias' || gated));
    const zero = Object.fromEntries(
      absent.map(name => [name, matrixOf(config.numExperts, name === 'downBias' ? dModel : dFf, () => 0)]),
    );
    const [without, withZeros] = [weights, { ...weights, ...zero }].map(some => expertsIn({ ...layer, weights: some }));
    for (const name of absent) if (without.out.rows > 0) reach(name);
    assertSame(withZeros.hidden.data, without.hidden.data, 'hidden');
    assertSame(withZeros.out.data, without.out.data, 'out');
  },
  ['upBias', 'gateBias', 'downBias'],
);

property(
  'E5 what an expert without tokens holds never matters',
  fc.tuple(layers(), fc.constantFrom(0, -1e300, Number.MAX_VALUE)),
  ([layer, value], reach) => {
    const { weights, config, x, inputs } = layer;
    const trace = forward(reference, x, weights, config, inputs);
    const { expertOffsets } = trace.plan;
    const numSkip = config.skipExpert ? 1 : 0;
    const isIdle = (e: number) => expertOffsets[e + numSkip] === expertOffsets[e + numSkip + 1];
    if (weights.up.some((_, e) => isIdle(e)) && trace.plan.tokenIndex.length > 0) reach('an idle expert beside others');
    const filled = (a: Matrix, e: number) => (isIdle(e) ? matrixOf(a.rows, a.cols, () => value) : a);
    const filledRows = (a: Matrix) => matrixOf(a.rows, a.cols, (e, j) => (isIdle(e) ? value : a.data[e * a.cols + j]));
    const changed: Weights = {
      router: weights.router,
      up: weights.up.map(filled),
      ...(weights.gate && { gate: weights.gate.map(filled) }),
      down: weights.down.map(filled),
      ...(weights.upBias && { upBias: filledRows(weights.upBias) }),
      ...(weights.gateBias && { gateBias: filledRows(weights.gateBias) }),
      ...(weights.downBias && { downBias: filledRows(weights.downBias) }),
    };
    assertSame(forward(reference, x, changed, config, inputs).y.data, trace.y.data, 'y', true);
  },
  ['an idle expert beside others'],
);

property(
  'E3 every activation has σ(h) − σ(−h) = h',
  layers({ routers: ['dense'], activations: ['relu', 'gelu', 'gelu_tanh', 'silu'], masks: ['absent'], large: false }),
  (layer, reach) => {
    const { x, weights, config } = layer;
    const negated = (a: Matrix): Matrix => ({ ...a, data: a.data.map((value: number) => -value) });
    const opposite: Weights = {
      ...weights,
      up: weights.up.map(negated),
      ...(weights.upBias && { upBias: negated(weights.upBias) }),
    };
    const { plan, hidden } = expertsIn(layer);
    const mirrored = expertsIn({ ...layer, weights: opposite }).hidden;
    const numSkip = config.skipExpert ? 1 : 0;
    for (const { i, column, token } of rowsOf(plan)) {
      if (column < numSkip) continue;
      plainPreActivations(rowOf(x, token), weights, column - numSkip).up.forEach(({ value, scale }, j) => {
        const at = i * hidden.cols + j;
        assertWithin(
          hidden.data[at] - mirrored.data[at],
          value,
          2 * hiddenError(weights) * scale,
          `hidden ${j} of row ${i}`,
        );
        if (hidden.data[at] < 0) reach('below 0');
      });
    }
  },
  ['below 0'],
);
