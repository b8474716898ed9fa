/** Rules L1-L4: the load-balancing loss. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { forward, loadBalancingLoss, loadBalancingLossBackward, type Matrix, reference } from 'xmoe';
import { generic, matrixOf, uniform } from 'xmoe/cases';
import { type Layer, layers, routerNames, sixteenths, softmaxRouters } from 'xmoe/spec';
import { assertSame, assertWithin, U } from './close.js';
import { property } from './property.js';
import { realTokens, rowOf, total } from './tables.js';
import { takeRows, takeTokens, withoutSkipping } from './transforms.js';

function lossOf({ x, weights, config, inputs }: Layer): number {
  return forward(reference, x, weights, config, inputs).loadBalancingLoss;
}

/** The first choice of a row: its largest probability, the lower index of equals. */
function firstOf(probs: Matrix, t: number): number {
  const p = rowOf(probs, t);
  return p.indexOf(Math.max(...p));
}

/** How often each expert is the first choice, over all the rows. */
function firstShares(probs: Matrix): number[] {
  const counts = Array<number>(probs.cols).fill(0);
  for (let t = 0; t < probs.rows; t++) counts[firstOf(probs, t)]++;
  return counts.map(count => (probs.rows === 0 ? 0 : count / probs.rows));
}

property(
  'L1 the loss is the mean, over pairs of real tokens, of E times what one gives to the first choice of the other',
  layers({ routers: softmaxRouters, large: false }),
  (layer, reach) => {
    const real = realTokens(layer.x.rows, layer.inputs);
    const { probs } = reference.route(layer.x, layer.weights);
    // E Σ_e mean(p_e) f_e = E/T² Σ_t Σ_s p_t[first of s]
    const terms = real.flatMap(t => real.map(s => rowOf(probs, t)[firstOf(probs, s)]));
    const expected = terms.length === 0 ? 0 : (probs.cols * total(terms)) / terms.length;
    if (real.length > 1) reach('several tokens');
    if (real.length > 0 && real.length < layer.x.rows) reach('padding');
    assertWithin(lossOf(layer), expected, 2 * (terms.length + 2 * probs.cols + 4) * U * expected, 'l_aux');
  },
  ['several tokens', 'padding'],
);

property(
  'L2 the loss lies between Σ f² and E, f the shares of first choices',
  fc.oneof(
    sixteenths,
    layers({ routers: softmaxRouters }).map(({ x, weights }) => reference.route(x, weights).probs),
  ),
  (probs, reach) => {
    // an expert's mean probability is at least f/E, since a first choice has at least 1/E; and Σ f·mean(p) is at most 1
    const loss = loadBalancingLoss(probs);
    const least = total(firstShares(probs).map(f => f * f));
    const slack = 4 * (probs.rows + probs.cols) * U;
    assert.ok(loss >= least * (1 - slack) && loss <= probs.cols * (1 + slack), `${least} <= ${loss} <= ${probs.cols}`);
    if (loss > 1 + slack) reach('above 1');
  },
  ['above 1'],
);

property(
  'L2 the loss is 1 when every expert is first as often and as probable, E when all tokens put everything on one, 0 without',
  fc.record({
    numExperts: fc.integer({ min: 1, max: 19 }),
    repeats: fc.integer({ min: 1, max: 4 }),
    seed: fc.nat(),
  }),
  ({ numExperts, repeats, seed }) => {
    // every rotation of one row of probabilities, each as often
    const weights = Array.from({ length: numExperts }, (_, e) => uniform(seed, e));
    const balanced = matrixOf(
      repeats * numExperts,
      numExperts,
      (t, e) => weights[(e + t) % numExperts] / total(weights),
    );
    const slack = 8 * (balanced.rows + numExperts) * U;
    if (new Set(weights).size === numExperts) assertWithin(loadBalancingLoss(balanced), 1, slack, 'balanced');
    const favourite = seed % numExperts;
    const collapsed = matrixOf(balanced.rows, numExperts, (_, e) => (e === favourite ? 1 : 0));
    assertWithin(loadBalancingLoss(collapsed), numExperts, slack * numExperts, 'collapsed');
    assert.equal(loadBalancingLoss(takeRows(collapsed, [])), 0);
  },
);

property(
  'L3 the loss is the same under every capacity, and without one',
  fc.tuple(layers({ routers: softmaxRouters }), fc.constantFrom(null, 0, 0.5, 3)),
  ([layer, capacityFactor], reach) => {
    const other: Layer = { ...layer, config: { ...layer.config, capacityFactor, minCapacity: 0 } };
    const [before, after] = [layer, other].map(({ x, weights, config, inputs }) =>
      forward(reference, x, weights, config, inputs),
    );
    if (before.plan.tokenIndex.length !== after.plan.tokenIndex.length) reach('other drops');
    assertSame([after.loadBalancingLoss], [before.loadBalancingLoss], 'l_aux', true);
  },
  ['other drops'],
);

property(
  'L3 the loss does not see what is selected beyond the first choice',
  layers({ routers: ['threshold', 'dense', 'topk'] }),
  (layer, reach) => {
    const { threshold: _, topK: __, ...config } = layer.config;
    const alone: Layer = { ...layer, config: { ...config, router: 'switch' } };
    const { plan, loadBalancingLoss: loss } = forward(reference, layer.x, layer.weights, layer.config, layer.inputs);
    if (plan.selection.expertIndex.length > realTokens(layer.x.rows, layer.inputs).length) reach('second choices');
    assertSame([lossOf(alone)], [loss], 'l_aux of top-1', true);
  },
  ['second choices'],
);

property(
  'L3 the gradient of the loss is its slope while first choices stay, and none flows through their counts',
  fc.tuple(
    fc.oneof(
      sixteenths,
      layers().map(({ x, weights }) => reference.route(x, weights).probs),
    ),
    fc.nat(),
  ),
  ([probs, seed], reach) => {
    // with the counts constant the loss is linear in p: one step of any length gives the slope
    const step = matrixOf(probs.rows, probs.cols, (t, e) => 2 ** -20 * generic(uniform(seed, t, e)));
    const moved = matrixOf(probs.rows, probs.cols, (t, e) => {
      const i = t * probs.cols + e;
      return probs.data[i] + (firstOf(probs, t) === e ? Math.abs(step.data[i]) : -Math.abs(step.data[i]));
    });
    const gradient = loadBalancingLossBackward(probs);
    const slope = total(moved.data.map((p, i) => (p - probs.data[i]) * gradient.data[i]));
    const allowed = 8 * (probs.rows + probs.cols) * U * (2 * probs.cols);
    if (probs.rows > 0 && probs.cols > 1) reach('a slope');
    assertWithin(loadBalancingLoss(moved) - loadBalancingLoss(probs), slope, allowed, 'a step');
  },
  ['a slope'],
);

property(
  'L3 the gradient of the loss is the same for every real token, 0 for padding, and 0 for experts that are nobody’s first',
  layers({ routers: softmaxRouters, masks: ['absent', 'some padded'] }),
  (layer, reach) => {
    const real = realTokens(layer.x.rows, layer.inputs);
    const { probs } = reference.route(layer.x, layer.weights);
    const shares = firstShares(takeRows(probs, real));
    const gradient = loadBalancingLossBackward(probs, layer.inputs.tokenMask);
    for (let t = 0; t < probs.rows; t++) {
      const isReal = real.includes(t);
      if (!isReal) reach('padding');
      shares.forEach((share, e) => {
        const expected = isReal ? (probs.cols * share) / real.length : 0;
        assertWithin(gradient.data[t * probs.cols + e], expected, 4 * U * expected, `∂p of [${t}, ${e}]`);
      });
    }
    if (shares.includes(0) && real.length > 0) reach('nobody’s first');
  },
  ['padding', 'nobody’s first'],
);

property(
  'L4 softmax routers have a loss, with a skip expert as one more column; Hash and BASE have 0',
  layers({ skipExpert: true }),
  (layer, reach) => {
    const loss = lossOf(layer);
    if (softmaxRouters.every(name => name !== layer.config.router)) {
      reach('no loss');
      assert.equal(loss, 0);
      return;
    }
    if (loss > 0) reach('a skip expert');
    assertSame([loss], [lossOf(withoutSkipping(layer))], 'l_aux', true);
  },
  ['no loss', 'a skip expert'],
);

property(
  'R3 padding is in neither mean of the loss',
  layers({ routers: routerNames, masks: ['some padded'] }),
  (layer, reach) => {
    const real = realTokens(layer.x.rows, layer.inputs);
    if (real.length > 0 && real.length < layer.x.rows && lossOf(layer) > 0) reach('padding');
    assertSame([lossOf(layer)], [lossOf(takeTokens(layer, real))], 'l_aux of the real tokens alone', true);
  },
  ['padding'],
);
