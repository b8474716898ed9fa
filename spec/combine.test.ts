/** Rules C1-C4: the weighted sum. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { forward, type Matrix, reference, type Trace } from 'xmoe';
import { matrixOf } from 'xmoe/cases';
import { hundredsOfExperts, type Layer, layers, noDrop, routerNames } from 'xmoe/spec';
import { assertMatrixWithin, assertSame, assertWithin, TINY, U } from './close.js';
import { keptIn, plainY, yError } from './plain.js';
import { property } from './property.js';
import { expertsOf, realTokens, rowOf, weightTable } from './tables.js';

function traceOf({ x, weights, config, inputs }: Layer): Trace {
  return forward(reference, x, weights, config, inputs);
}

/** y against the plain loops, with the decisions of the plan. */
function assertY(layer: Layer, reach: (place: string) => void): void {
  const { plan, y } = traceOf(layer);
  const expected = plainY(layer, keptIn(plan));
  reach(layer.config.router);
  if (plan.kept.includes(0)) reach('drops');
  if (plan.tokenIndex.length > plan.expertOffsets[256]) reach('rows of high indices');
  assert.deepEqual([y.rows, y.cols], [layer.x.rows, layer.x.cols]);
  const allowed = Array.from({ length: y.rows }, (_, t) => yError(layer, t));
  assertMatrixWithin(
    y,
    (t, c) => expected[t][c].value,
    (t, c) => allowed[t] * expected[t][c].scale + TINY,
    'y',
  );
}

property(
  'C1 y is the sum over every expert of weight times output, with the weight 0 where nothing is kept',
  layers(),
  assertY,
  [...routerNames, 'drops'],
);

property(
  'C1 y is that sum over hundreds of experts too',
  layers({ routers: ['threshold', 'dense'], logits: ['generic'], masks: ['absent'], sizes: hundredsOfExperts }),
  assertY,
  ['rows of high indices'],
  { share: 0.25 },
);

property(
  'C1 combine sums the given rows with the given weights, whatever they are',
  fc.tuple(layers({ routers: ['threshold', 'dense', 'topk'], large: false }), fc.integer({ min: 1, max: 9 })),
  ([layer, scale], reach) => {
    const { plan, experts } = traceOf(layer);
    const whole = (i: number, j: number) => ((7 * i + 3 * j) % 11) - 5;
    const rows = matrixOf(experts.out.rows, experts.out.cols, whole);
    const y = reference.combine(rows, { ...plan, combineWeight: plan.combineWeight.map((_, i) => scale + i) });
    const expected = matrixOf(layer.x.rows, rows.cols, () => 0);
    plan.tokenIndex.forEach((t, i) => {
      for (let c = 0; c < rows.cols; c++) expected.data[t * rows.cols + c] += (scale + i) * whole(i, c);
    });
    if (plan.tokenIndex.length > layer.x.rows) reach('several rows for a token');
    assertSame(y.data, expected.data, 'y');
  },
  ['several rows for a token'],
);

property(
  'C2 a token that keeps no expert has y = 0, and padding too',
  layers(),
  (layer, reach) => {
    const { plan, y } = traceOf(layer);
    const keeping = new Set(plan.tokenIndex);
    const real = realTokens(layer.x.rows, layer.inputs);
    for (let t = 0; t < y.rows; t++) {
      if (keeping.has(t)) continue;
      reach(real.includes(t) ? 'lost all' : 'padding');
      assertSame(rowOf(y, t), Array(y.cols).fill(0), `y of token ${t}`);
    }
  },
  ['lost all', 'padding'],
);

property(
  'C3 the output bias is weighted: experts that say nothing else give Σ w·b2',
  layers(),
  (layer, reach) => {
    const { weights, config } = layer;
    const { rows: dModel } = weights.down[0];
    const silent = weights.down.map(({ rows, cols }) => matrixOf(rows, cols, () => 0));
    const downBias: Matrix = matrixOf(config.numExperts, dModel, (e, c) => e + c - 3);
    const { plan, y } = traceOf({ ...layer, weights: { ...weights, down: silent, downBias } });
    const table = weightTable(plan);
    const numSkip = config.skipExpert ? 1 : 0;
    for (let t = 0; t < y.rows; t++) {
      for (let c = 0; c < dModel; c++) {
        let [expected, scale] = [0, 0];
        for (let e = 0; e < config.numExperts; e++) {
          expected += table[t][e + numSkip] * (e + c - 3);
          scale += Math.abs(table[t][e + numSkip] * (e + c - 3));
        }
        assertWithin(y.data[t * dModel + c], expected, 2 * (config.numExperts + 1) * U * scale, `y of [${t}, ${c}]`);
        if (scale > 0) reach('a bias');
      }
    }
  },
  ['a bias'],
);

property(
  'C4 a hashed token is what its expert says, and a BASE weight lies between 0 and 1 and follows the logit',
  layers({ routers: ['hash', 'base_eval', 'base_train'], capacities: noDrop }),
  (layer, reach) => {
    const { plan, routing, experts, y } = traceOf(layer);
    reach(layer.config.router);
    plan.tokenIndex.forEach((t, i) => {
      const w = plan.combineWeight[i];
      if (layer.config.router === 'hash') {
        assert.equal(w, 1);
        assertSame(rowOf(y, t), rowOf(experts.out, i), `y of token ${t}`);
        return;
      }
      const z = rowOf(routing.logits, t)[expertsOf(plan, t)[0]];
      assert.ok(w >= 0 && w <= 1 && w >= 0.5 === z >= 0, `sigmoid(${z}) = ${w}`);
      // logit(w) = z, where neither w nor 1 − w has lost its digits
      if (Math.abs(z) < 4) assertWithin(Math.log(w / (1 - w)), z, 2 ** -42, `the logit of the weight of token ${t}`);
    });
  },
  ['hash', 'base_eval', 'base_train'],
);
