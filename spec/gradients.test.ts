/** Rules G1-G7: the gradients. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { backward, forward, type Gradients, reference, type Trace } from 'xmoe';
import { activationNames, type Layer, layers, noDrop, softmaxRouters, withCapacity } from 'xmoe/spec';
import { assertMatrixWithin, assertSame, assertWithin, TINY, U } from './close.js';
import { plainPreActivations } from './plain.js';
import { property } from './property.js';
import { slopeOf, variablesOf } from './slopes.js';
import { realTokens, rowOf, total } from './tables.js';
import { takeRows, takeTokens } from './transforms.js';

function gradientsOf(layer: Layer): { trace: Trace; gradients: Gradients } {
  const { x, weights, config, inputs, gradY } = layer;
  const trace = forward(reference, x, weights, config, inputs);
  return { trace, gradients: backward(trace, x, weights, config, gradY, inputs) };
}

/** Every gradient along its own random direction against central differences. */
function assertSlopes(layer: Layer, seed: number, reach: (place: string) => void): void {
  const run = gradientsOf(layer);
  const { plan } = run.trace;
  variablesOf(layer).forEach((variable, i) => {
    const slope = slopeOf(layer, variable, run, seed + i);
    if (slope === undefined) return;
    const { ofGradient, ofDifferences, allowed } = slope;
    assertWithin(ofGradient, ofDifferences, allowed, `the slope of the loss in ${variable.name}`);
    if (Math.abs(ofGradient) < 1e4 * allowed) return; // nothing to see beside the errors
    reach(variable.name);
    reach(layer.config.router);
    reach(layer.config.activation);
    if (plan.kept.includes(0)) reach('drops');
    if (layer.inputs.tokenMask?.includes(0)) reach('padding');
    if (plan.selection.numExperts > layer.config.numExperts) reach('a skip expert');
  });
}

property(
  'G2 the gradients of a softmax router are the slopes of the loss, where no decision and no kink is crossed',
  fc.tuple(layers({ routers: softmaxRouters, masks: ['absent', 'some padded'], maxSize: 6, large: false }), fc.nat()),
  ([layer, seed], reach) => assertSlopes(layer, seed, reach),
  [...softmaxRouters, 'x', 'router', 'drops', 'padding', 'a skip expert'],
);

property(
  'G3 the gradients of every weight of every kind of expert are slopes, at all sizes up to 19',
  fc.tuple(
    layers({
      routers: ['threshold', 'hash'],
      activations: [...activationNames, 'swiglu', 'geglu'],
      masks: ['absent'],
      capacities: noDrop,
      large: false,
    }),
    fc.nat(),
  ),
  ([layer, seed], reach) => assertSlopes(layer, seed, reach),
  ['x', 'up', 'upBias', 'gate', 'down', 'downBias'],
  { share: 0.5 },
);

property(
  'G3 the gradients of every activation are slopes',
  fc.tuple(layers({ routers: ['dense', 'hash'], masks: ['absent'], maxSize: 5, large: false }), fc.nat()),
  ([layer, seed], reach) => assertSlopes(layer, seed, reach),
  [...activationNames, 'gateBias'],
);

property(
  'G4 the gradients of BASE are slopes, through the sigmoid',
  fc.tuple(layers({ routers: ['base_eval', 'base_train'], maxSize: 5, large: false }), fc.nat()),
  ([layer, seed], reach) => assertSlopes(layer, seed, reach),
  ['base_eval', 'base_train', 'router'],
);

property(
  'G1 no gradient flows to an expert that keeps no token, nor to its router row in BASE',
  layers(),
  (layer, reach) => {
    const { trace, gradients } = gradientsOf(layer);
    const { expertOffsets } = trace.plan;
    const { numExperts, skipExpert, router } = layer.config;
    const numSkip = skipExpert ? 1 : 0;
    for (let e = 0; e < numExperts; e++) {
      if (expertOffsets[e + numSkip] < expertOffsets[e + numSkip + 1]) continue;
      if (trace.plan.tokenIndex.length > 0) reach('an idle expert beside others');
      const { up, gate, down, upBias, gateBias, downBias, router: ofRouter } = gradients.weights;
      for (const a of [up[e], gate?.[e], down[e]]) if (a) assertZero(Array.from(a.data), `expert ${e}`);
      for (const a of [upBias, gateBias, downBias]) if (a) assertZero(rowOf(a, e), `a bias of expert ${e}`);
      if (router === 'base_eval') assertZero(rowOf(ofRouter, e + numSkip), `router row ${e + numSkip}`);
    }
  },
  ['an idle expert beside others'],
);

property(
  'G2 what reaches the logits of a softmax router sums to 0 over the experts',
  layers({ routers: softmaxRouters }),
  (layer, reach) => {
    const { trace, gradients } = gradientsOf(layer);
    const { router } = gradients.weights;
    // each ∂z is p_e (∂p_e − ⟨p, ∂p⟩): the terms of a column of ∂Wr cancel, to the rounding of their sizes
    const largest = Math.max(0, ...layer.x.data.map(Math.abs)) * largestGradP(layer, trace);
    const allowed = 8 * (router.rows + layer.x.rows + 4) * U * layer.x.rows * largest;
    if (router.rows > 1 && router.data.some(value => Math.abs(value) > 1e3 * allowed)) reach('a gradient');
    for (let c = 0; c < router.cols; c++) {
      const column = Array.from({ length: router.rows }, (_, e) => rowOf(router, e)[c]);
      assertWithin(total(column), 0, allowed, `column ${c} of ∂Wr`);
    }
  },
  ['a gradient'],
);

/** More than any |∂p|: |⟨gradY, out⟩| and |α|·E/T. */
function largestGradP(layer: Layer, { plan, experts }: Trace): number {
  const products = Array.from(plan.tokenIndex, (t, i) => {
    const g = rowOf(layer.gradY, t);
    return total(rowOf(experts.out, i).map((value, c) => Math.abs(value * g[c])));
  });
  return Math.max(0, ...products) + Math.abs(layer.config.auxLossCoef ?? 0) * plan.selection.numExperts;
}

property(
  'G5 Hash has no gradient for a router',
  layers({ routers: ['hash'] }),
  layer => {
    const { router } = gradientsOf(layer).gradients.weights;
    assert.deepEqual([router.rows, router.cols], [0, layer.x.cols]);
  },
  [],
  { share: 0.25 },
);

property(
  'G6 padded tokens, and without α those that lost all their experts, have no gradient',
  layers({
    routers: ['threshold', 'topk', 'switch', 'hash', 'base_eval'],
    masks: ['absent', 'some padded'],
    capacities: withCapacity,
  }),
  (layer, reach) => {
    const { trace, gradients } = gradientsOf(layer);
    const keeping = new Set(trace.plan.tokenIndex);
    const real = new Set(realTokens(layer.x.rows, layer.inputs));
    const isQuiet = (layer.config.auxLossCoef ?? 0) === 0;
    for (let t = 0; t < layer.x.rows; t++) {
      if (real.has(t) && (keeping.has(t) || !isQuiet)) continue;
      reach(real.has(t) ? 'lost all' : 'padded');
      assertZero(rowOf(gradients.x, t), `∂x of token ${t}`);
    }
  },
  ['lost all', 'padded'],
);

property(
  'G6 the gradients are those of the real tokens alone, whatever stands in the padding',
  layers({ masks: ['some padded'] }),
  (layer, reach) => {
    const real = realTokens(layer.x.rows, layer.inputs);
    const all = gradientsOf(layer).gradients;
    const alone = gradientsOf(takeTokens(layer, real)).gradients;
    if (real.length > 0 && real.length < layer.x.rows) reach('padding between');
    assertSame(takeRows(all.x, real).data, alone.x.data, '∂x');
    variablesOf(layer).forEach(({ name, gradientIn }) => {
      if (name === 'x') return;
      gradientIn(all).forEach((a, e) => {
        assertSame(a.data, gradientIn(alone)[e].data, `∂${name} ${e}`);
      });
    });
  },
  ['padding between'],
);

property(
  'G7 a relu that is not open, at 0 too, lets no gradient through',
  layers({ routers: ['dense', 'hash'], activations: ['relu'], logits: ['tied', 'negative'] }),
  (layer, reach) => {
    const { trace, gradients } = gradientsOf(layer);
    const { expertOffsets, tokenIndex } = trace.plan;
    const numSkip = layer.config.skipExpert ? 1 : 0;
    for (let e = 0; e < layer.config.numExperts; e++) {
      const tokens = tokenIndex.subarray(expertOffsets[e + numSkip], expertOffsets[e + numSkip + 1]);
      const h = Array.from(tokens, t => plainPreActivations(rowOf(layer.x, t), layer.weights, e).up);
      for (let j = 0; j < trace.experts.hidden.cols; j++) {
        // integers sum exactly; other values must be clear of 0 before their sign is sure
        const isClosed = h.every(row => row[j].value <= 0 && (Number.isInteger(row[j].scale) || row[j].value < -1e-9));
        if (!isClosed) continue;
        if (h.some(row => row[j].value === 0 && row[j].scale > 0)) reach('exactly 0');
        assertZero(rowOf(gradients.weights.up[e], j), `∂W1 of expert ${e}, row ${j}`);
        const { upBias } = gradients.weights;
        if (upBias) assertZero([rowOf(upBias, e)[j]], `∂b1 of expert ${e}, unit ${j}`);
      }
    }
  },
  ['exactly 0'],
);

property(
  'G1 the loss is Σ(y ⊙ gradY) + α·l_aux, and its gradients are linear in gradY',
  layers({ large: false }),
  (layer, reach) => {
    const { trace, gradients } = gradientsOf(layer);
    const terms = Array.from(trace.y.data, (y, i) => y * layer.gradY.data[i]);
    const alpha = layer.config.auxLossCoef ?? 0;
    const allowed = (terms.length + 8) * U * (total(terms.map(Math.abs)) + Math.abs(alpha * trace.loadBalancingLoss));
    assertWithin(gradients.loss, total(terms) + alpha * trace.loadBalancingLoss, 2 * allowed, 'loss');

    // doubling is exact: g(2 gradY) = 2 g(gradY) without α, and g(0) is that of α alone
    const { auxLossCoef: _, ...quiet } = layer.config;
    const of = (factor: number) =>
      gradientsOf({ ...layer, config: quiet, gradY: { ...layer.gradY, data: layer.gradY.data.map(g => factor * g) } });
    const [none, once, twice] = [of(0), of(1), of(2)].map(result => result.gradients);
    variablesOf(layer).forEach(({ name, gradientIn }) => {
      gradientIn(once).forEach((a, e) => {
        if (a.data.some(value => value !== 0)) reach(`∂${name}`);
        const doubled = (i: number, j: number) => 2 * a.data[i * a.cols + j];
        assertMatrixWithin(gradientIn(twice)[e], doubled, () => TINY, `∂${name} ${e}, twice`);
        assertZero(Array.from(gradientIn(none)[e].data), `∂${name} ${e} without a cotangent`);
      });
    });
  },
  ['∂x', '∂router', '∂up', '∂down'],
);

function assertZero(values: readonly number[], what: string): void {
  assertSame(values, Array(values.length).fill(0), what);
}
