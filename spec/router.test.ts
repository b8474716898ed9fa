/** Rules R1 and R2: logits and probabilities. */
import fc from 'fast-check';
import { type Matrix, reference, softmax } from 'xmoe';
import { integer, matrixOf, uniform } from 'xmoe/cases';
import { type Layer, type LogitStyle, layers, routerNames, softmaxRouters } from 'xmoe/spec';
import { assertMatrixWithin, assertSame, assertWithin, TINY, U } from './close.js';
import { plainLogits, plainSoftmax, probabilityError, scaled } from './plain.js';
import { property } from './property.js';
import { rowOf, total } from './tables.js';
import { takeRows, takeTokens } from './transforms.js';

const withRouter = routerNames.filter(router => router !== 'hash');

property(
  'R1 a logit is the sum of the products of a token and a router row',
  layers({ routers: withRouter }),
  (layer, reach) => {
    const { logits } = reference.route(layer.x, layer.weights);
    if (layer.x.rows > 0 && layer.x.cols % 4 !== 0) reach('a tail');
    if (layer.x.cols > 16) reach('a fifth vector');
    for (let t = 0; t < logits.rows; t++) {
      const plain = plainLogits(layer, t);
      const isExact = plain.every(({ scale }) => Number.isInteger(scale));
      if (isExact) reach('exact sums');
      plain.forEach(({ value, scale }, e) => {
        const allowed = isExact ? 0 : 2 * (layer.x.cols + 1) * U * scale;
        assertWithin(logits.data[t * logits.cols + e], value, allowed, `logit of token ${t}, expert ${e}`);
      });
    }
  },
  ['a tail', 'a fifth vector', 'exact sums'],
);

property(
  'R1 a logit depends on its own token and router row alone, bit for bit',
  fc.tuple(layers({ routers: withRouter }), fc.nat(), fc.nat()),
  ([layer, someToken, someExpert], reach) => {
    if (layer.x.rows === 0) return;
    const [t, e] = [someToken % layer.x.rows, someExpert % layer.weights.router.rows];
    if (layer.x.rows >= 4 && layer.weights.router.rows >= 4) reach('a tile against a tail');
    const all = reference.route(layer.x, layer.weights).logits;
    const router = takeRows(layer.weights.router, [e]);
    const alone = reference.route(takeRows(layer.x, [t]), { ...layer.weights, router }).logits;
    assertSame(alone.data, [all.data[t * all.cols + e]], `logit of token ${t}, expert ${e} alone`, true);
  },
  ['a tile against a tail'],
);

property(
  'R2 probabilities are the softmax over all experts: in [0, 1], of sum 1, with the ratios that the logits say',
  layers({ routers: withRouter }),
  (layer, reach) => {
    const { logits, probs } = reference.route(layer.x, layer.weights);
    const { cols } = probs;
    if (cols === 1) reach('one expert');
    for (let t = 0; t < probs.rows; t++) {
      const [z, p] = [rowOf(logits, t), rowOf(probs, t)];
      if (z.every(v => v < 0)) reach('all negative');
      if (z.some(v => Math.abs(v) >= 1000)) reach('saturated');
      if (p.includes(0)) reach('a probability of 0');
      assertWithin(total(p), 1, 2 * cols * U, `the sum of token ${t}`);
      const allowed = probabilityError(scaled(z), 0);
      plainSoftmax(z).forEach((expected, e) => {
        if (z.indexOf(z[e]) < e) reach('equal logits');
        assertSame([p[z.indexOf(z[e])]], [p[e]], `equal logits of token ${t}, expert ${e}`);
        assertWithin(p[e], expected, allowed * expected + TINY, `token ${t}, expert ${e}`);
        if (!(p[e] >= 0 && p[e] <= 1)) throw new Error(`token ${t}, expert ${e}: p = ${p[e]}`);
      });
    }
  },
  ['one expert', 'all negative', 'saturated', 'a probability of 0', 'equal logits'],
);

property(
  'R2 equal logits of a power of two have exactly equal shares',
  fc.record({
    shares: fc.constantFrom(1, 2, 4, 8, 16),
    tails: fc.integer({ min: 0, max: 9 }),
    level: fc.constantFrom(0, 1000, -1000, 1e300, -1e300, 5e-324),
  }),
  ({ shares, tails, level }) => {
    const logits = matrixOf(1, shares + tails, (_, e) => (e < shares ? level : level - 1e4 - Math.abs(level)));
    assertSame(
      softmax(logits).data,
      Array.from(logits.data, (_, e) => (e < shares ? 1 / shares : 0)),
      'shares',
    );
  },
);

/** Adds a constant to each row. */
function shifted(a: Matrix, constant: (row: number) => number): Matrix {
  return matrixOf(a.rows, a.cols, (i, j) => a.data[i * a.cols + j] + constant(i));
}

const exactStyles: LogitStyle[] = ['tied', 'saturated', 'negative'];

property(
  'R2 a constant added to the logits of a token changes no bit where the sums are exact',
  fc.tuple(layers({ routers: softmaxRouters, logits: exactStyles }), fc.nat()),
  ([layer, seed], reach) => {
    const { logits, probs } = reference.route(layer.x, layer.weights);
    const constant = (t: number) => integer(uniform(seed, t), -5000, 5000);
    const moved = softmax(shifted(logits, constant));
    if (probs.data.some(p => p > 0 && p < 1)) reach('a mixture');
    assertSame(moved.data, probs.data, 'probabilities', true);
  },
  ['a mixture'],
);

property(
  'R2 a constant added to the logits of a token moves the probabilities by no more than rounding',
  fc.tuple(layers({ routers: softmaxRouters }), fc.nat()),
  ([layer, seed]) => {
    const { logits, probs } = reference.route(layer.x, layer.weights);
    const moved = shifted(logits, t => 20 * uniform(seed, t) - 10);
    const allowed = Array.from({ length: logits.rows }, (_, t) =>
      probabilityError(scaled([...rowOf(logits, t), ...rowOf(moved, t)]), 0),
    );
    assertMatrixWithin(
      softmax(moved),
      (t, e) => probs.data[t * probs.cols + e],
      (t, e) => allowed[t] * probs.data[t * probs.cols + e] + TINY,
      'probability',
    );
  },
);

property(
  'R3 the router says of a token what it says without the others',
  fc.tuple(layers({ routers: withRouter }), fc.nat()),
  ([layer, seed]: [Layer, number]) => {
    const some = Array.from({ length: layer.x.rows }, (_, t) => t).filter(t => uniform(seed, t) < 0.5);
    const all = reference.route(layer.x, layer.weights);
    const fewer = reference.route(takeTokens(layer, some).x, layer.weights);
    assertSame(fewer.probs.data, takeRows(all.probs, some).data, 'probabilities of some tokens', true);
  },
);
