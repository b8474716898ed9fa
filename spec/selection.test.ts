/** Rules D1-D9: which experts a token chooses. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type Config, type Matrix, reference, type Selection, selectExceed, selectThreshold, selectWithin } from 'xmoe';
import { matrixOf, shuffled } from 'xmoe/cases';
import { hundredsOfExperts, type Layer, layers, routerNames, sixteenths, thresholds } from 'xmoe/spec';
import { assertSame, assertWithin, U } from './close.js';
import { property } from './property.js';
import { expertsOf, pairsOf, realTokens, rowOf, total } from './tables.js';
import { reorderExperts, takeTokens } from './transforms.js';

/** The routing of a layer, and its selection with other settings where they are given. */
function selectIn({ x, weights, inputs, config }: Layer, change: Partial<Config> = {}) {
  const routing = reference.route(x, weights);
  const { selection } = reference.dispatch(routing, inputs, { ...config, ...change, capacityFactor: null });
  return { ...routing, selection };
}

/** Whether `first` comes before `second` when values fall and equal ones follow their index. */
function precedes(values: readonly number[], first: number, second: number): boolean {
  return values[first] > values[second] || (values[first] === values[second] && first < second);
}

/** Every one of `chosen` comes before the next, and the last of them before all the others. */
function assertFirst(values: readonly number[], chosen: readonly number[], others: readonly number[]): void {
  for (let rank = 1; rank < chosen.length; rank++) {
    if (!precedes(values, chosen[rank - 1], chosen[rank])) assert.fail(`${chosen} out of order in ${values}`);
  }
  const last = chosen.at(-1);
  for (const e of others) {
    if (last !== undefined && !precedes(values, last, e)) assert.fail(`${chosen} without ${e} of ${values}`);
  }
}

function othersThan(chosen: readonly number[], count: number): number[] {
  return Array.from({ length: count }, (_, e) => e).filter(e => !chosen.includes(e));
}

/** p(0), p(0) + p(1), … in the order of the list. */
function partialMasses(p: readonly number[], order: readonly number[]): number[] {
  let mass = 0;
  return order.map(e => {
    mass += p[e];
    return mass;
  });
}

/** Every real token's list is in order of p, and nobody outside it belongs before its last. */
function assertRanked(layer: Layer, reach: (place: string) => void): void {
  const { probs, selection } = selectIn(layer);
  for (const t of realTokens(layer.x.rows, layer.inputs)) {
    const [p, chosen] = [rowOf(probs, t), expertsOf({ selection }, t)];
    const others = othersThan(chosen, p.length);
    assertFirst(p, chosen, others);
    if (chosen.some((e, rank) => rank > 0 && p[e] === p[chosen[rank - 1]])) reach('equals inside');
    if (others.some(e => p[e] === p[chosen[chosen.length - 1]])) reach('equals at the border');
    if (chosen.slice(0, 40).some(e => e > 255)) reach('high indices first');
  }
}

property(
  'D1 no expert comes before a more probable one, nor before one of lower index that is equally probable',
  layers({ routers: ['threshold', 'dense', 'switch'] }),
  assertRanked,
  ['equals inside', 'equals at the border'],
);

property(
  'D1 an expert of hundreds has the rank of its probability, whatever its index',
  layers({
    routers: ['threshold', 'dense'],
    logits: ['generic'],
    masks: ['absent'],
    sizes: hundredsOfExperts,
  }),
  assertRanked,
  ['high indices first'],
  { share: 0.25 },
);

/** Probabilities, a threshold and perhaps padding: those of a layer, or sixteenths, whose masses meet it exactly. */
interface Choice {
  readonly probs: Matrix;
  readonly threshold: number;
  readonly tokenMask?: Uint8Array;
}

function choices(threshold: fc.Arbitrary<number>): fc.Arbitrary<Choice> {
  const ofLayers = layers({ routers: ['threshold'], thresholds: threshold }).map(layer => ({
    ...layer.inputs,
    probs: reference.route(layer.x, layer.weights).probs,
    threshold: layer.config.threshold!,
  }));
  return fc.noBias(fc.oneof(ofLayers, { weight: 2, arbitrary: fc.record({ probs: sixteenths, threshold }) }));
}

/** What each real token selects, and its probabilities. */
function* chosenIn({ probs, tokenMask }: Choice, select: (probs: Matrix) => Selection) {
  const selection = select(probs);
  for (const t of realTokens(probs.rows, tokenMask ? { tokenMask } : {})) {
    yield { t, p: rowOf(probs, t), chosen: expertsOf({ selection }, t) };
  }
}

property(
  'D2 the selected experts are the fewest whose mass reaches the threshold',
  choices(thresholds),
  (choice, reach) => {
    const { threshold, tokenMask } = choice;
    for (const { p, chosen } of chosenIn(choice, probs => selectThreshold(probs, threshold, tokenMask))) {
      const masses = partialMasses(p, chosen);
      if (masses.includes(threshold)) reach('mass on the threshold');
      if (chosen.length > 1 && chosen.length < p.length) reach('some, not all');
      assert.ok(chosen.length === 1 || masses[chosen.length - 2] < threshold || threshold > 1, 'one too many');
      assert.ok(chosen.length === p.length || masses[chosen.length - 1] >= threshold, 'one too few');
    }
  },
  ['mass on the threshold', 'some, not all'],
);

property(
  'D2 the selected set grows with the threshold, by rank',
  fc.tuple(choices(thresholds), thresholds),
  ([choice, other], reach) => {
    const { probs, tokenMask } = choice;
    const [low, high] = [choice.threshold, other].sort((a, b) => a - b);
    const [fewer, more] = [low, high].map(threshold => selectThreshold(probs, threshold, tokenMask));
    for (let t = 0; t < probs.rows; t++) {
      const [small, large] = [fewer, more].map(selection => expertsOf({ selection }, t));
      if (small.length < large.length) reach('more experts');
      assertSame(small, large.slice(0, small.length), `token ${t}: ${low} against ${high}`);
    }
  },
  ['more experts'],
);

const ends = fc.constantFrom(0, -1, -1e300, 2 ** -1074, 1 + 2 ** -52, 1.5, 1e300);

property(
  'D3 a threshold of 0 or less selects the first expert, above 1 every one, and none loses the first',
  choices(fc.oneof({ weight: 2, arbitrary: ends }, thresholds)),
  (choice, reach) => {
    const { threshold, tokenMask } = choice;
    for (const { p, chosen } of chosenIn(choice, probs => selectThreshold(probs, threshold, tokenMask))) {
      const best = Math.max(...p);
      assert.equal(p[chosen[0]], best);
      if (threshold <= 0) reach('0 or less');
      if (threshold <= best) assert.deepEqual(chosen, [p.indexOf(best)]);
      if (threshold <= 1) continue;
      reach(p.includes(0) ? 'above 1, with a probability of 0' : 'above 1');
      assert.equal(chosen.length, p.length);
    }
  },
  ['0 or less', 'above 1', 'above 1, with a probability of 0'],
);

property(
  'D3 rounding hides no expert from a threshold above 1',
  fc.noBias(fc.record({ shares: fc.integer({ min: 1, max: 300 }), tails: fc.integer({ min: 1, max: 3 }) })),
  ({ shares, tails }, reach) => {
    // n times 1/n may pass 1 by a rounding or more, with tails still to come
    const probs = matrixOf(1, shares + tails, (_, e) => (e < shares ? 1 / shares : 1e-300));
    if (partialMasses(rowOf(probs, 0), [...Array(shares).keys()])[shares - 1] > 1) reach('a mass above 1');
    assert.equal(selectThreshold(probs, 1 + 2 ** -52).expertIndex.length, shares + tails);
  },
  ['a mass above 1'],
);

property(
  'D4 within is at most XMoE, which is at most exceed, and they part where they are said to',
  choices(fc.oneof(...[16, 16, 100].map(parts => fc.integer({ min: 0, max: parts }).map(n => n / parts)))),
  (choice, reach) => {
    const { probs, threshold, tokenMask } = choice;
    const relatives = [selectWithin, selectExceed].map(select => select(probs, threshold, tokenMask));
    for (const { t, p, chosen } of chosenIn(choice, () => selectThreshold(probs, threshold, tokenMask))) {
      const [within, exceed] = relatives.map(selection => expertsOf({ selection }, t));
      const masses = partialMasses(p, exceed);
      if (masses.some((mass, rank) => rank > 0 && mass <= masses[rank - 1])) continue;
      assertSame(within, chosen.slice(0, within.length), 'within ⊆ XMoE');
      assertSame(chosen, exceed.slice(0, chosen.length), 'XMoE ⊆ exceed');
      const isCrossed = chosen.length > 1 && masses[chosen.length - 1] > threshold;
      assert.equal(chosen.length - within.length, isCrossed ? 1 : 0, 'the crossing expert');
      if (isCrossed) reach('the crossing expert is lost');
      const isMet = chosen.length < p.length && masses[chosen.length - 1] === threshold;
      assert.equal(exceed.length - chosen.length, isMet ? 1 : 0, 'one more');
      if (isMet) reach('equal mass takes one more');
    }
  },
  ['the crossing expert is lost', 'equal mass takes one more'],
);

property(
  'D5 dense mode takes every expert of every real token, whatever the threshold, and keeps it, whatever the capacity',
  layers({ routers: ['dense'] }),
  ({ x, weights, inputs, config }, reach) => {
    const plan = reference.dispatch(reference.route(x, weights), inputs, { ...config, threshold: 0.5 });
    const real = realTokens(x.rows, inputs);
    const numColumns = weights.router.rows;
    if (config.capacityFactor !== null && real.length > 1) reach('a capacity');
    for (const t of real) assert.equal(new Set(expertsOf(plan, t)).size, numColumns);
    assert.equal(pairsOf(plan).filter(({ kept }) => kept).length, real.length * numColumns);
  },
  ['a capacity'],
);

property(
  'D6 top-k takes the most probable expert, then the best by noisy logits of the rest',
  layers({ routers: ['topk', 'topk', 'switch'] }),
  (layer, reach) => {
    const { logits, probs, selection } = selectIn(layer);
    const { noise } = layer.inputs;
    const topK = layer.config.topK ?? 1;
    for (const t of realTokens(layer.x.rows, layer.inputs)) {
      const [p, z, chosen] = [rowOf(probs, t), rowOf(logits, t), expertsOf({ selection }, t)];
      const noisy = z.map((value, e) => value + (noise ? rowOf(noise, t)[e] : 0));
      assert.equal(chosen.length, topK);
      assert.equal(chosen[0], p.indexOf(Math.max(...p)));
      assertFirst(noisy, chosen.slice(1), topK === 1 ? [] : othersThan(chosen, p.length));
      if (noise && topK > 1 && noisy[chosen[1]] > noisy[chosen[0]]) reach('noise overtakes the best expert');
      if (topK > 1 && z[chosen[1]] === z[chosen[0]]) reach('equal logits');
      if (topK === p.length && topK > 1) reach('all of several');
    }
  },
  ['noise overtakes the best expert', 'equal logits', 'all of several'],
);

property(
  'D6 without noise the selected set grows with k, and k = 1 is Switch',
  layers({ routers: ['topk'] }),
  (layer, reach) => {
    const { noise: _, ...inputs } = layer.inputs;
    const of = (change: Partial<Config>) => selectIn({ ...layer, inputs }, change).selection;
    const topK = layer.config.topK!;
    if (topK > 1) reach('k > 1');
    const [one, fewer, more] = [of({ router: 'switch' }), of({ topK: Math.max(1, topK - 1) }), of({ topK })];
    for (let t = 0; t < layer.x.rows; t++) {
      const list = expertsOf({ selection: more }, t);
      assertSame(expertsOf({ selection: fewer }, t), list.slice(0, Math.max(1, topK - 1)), `token ${t}: k − 1`);
      assertSame(expertsOf({ selection: one }, t), list.slice(0, 1), `token ${t}: Switch`);
    }
  },
  ['k > 1'],
);

property(
  'D7 a hashed token goes to the expert of its id, whatever x is',
  layers({ routers: ['hash'] }),
  (layer, reach) => {
    const { logits, probs, selection } = selectIn(layer);
    const { tokenIds, hashTable } = layer.inputs;
    assert.deepEqual([logits.cols, probs.cols, logits.rows, probs.rows], [0, 0, layer.x.rows, layer.x.rows]);
    for (const t of realTokens(layer.x.rows, layer.inputs)) {
      assertSame(expertsOf({ selection }, t), [hashTable![tokenIds![t]]], `token ${t}`);
      if (tokenIds!.indexOf(tokenIds![t]) < t) reach('an id twice');
    }
  },
  ['an id twice'],
);

property(
  'D8 BASE at evaluation takes the expert of the best logit, the lower index of equals',
  layers({ routers: ['base_eval'] }),
  (layer, reach) => {
    const { logits, selection } = selectIn(layer);
    for (const t of realTokens(layer.x.rows, layer.inputs)) {
      const z = rowOf(logits, t);
      assertSame(expertsOf({ selection }, t), [z.indexOf(Math.max(...z))], `token ${t}`);
      if (z.indexOf(Math.max(...z)) < z.lastIndexOf(Math.max(...z))) reach('equal logits');
      if (Math.max(...z) < 0) reach('all negative');
    }
  },
  ['equal logits', 'all negative'],
);

property(
  'D9 BASE in training gives every expert as many tokens, and no round of moves between experts gains',
  layers({ routers: ['base_train'], masks: ['absent', 'some padded'] }),
  (layer, reach) => {
    const { logits, selection } = selectIn(layer);
    const { cols } = logits;
    const real = realTokens(layer.x.rows, layer.inputs);
    const expertOf = real.map(t => expertsOf({ selection }, t)[0]);
    for (let e = 0; e < cols; e++) {
      assert.equal(expertOf.filter(expert => expert === e).length, real.length / cols, `the tokens of expert ${e}`);
    }
    if (real.length > cols && cols > 1) reach('several places');
    if (real.length < layer.x.rows && real.length > 0) reach('padding between');

    // gain[e][f]: the most that one token of e adds when it moves to f; an optimum has no cycle of positive gain
    const gain = Array.from({ length: cols }, (_, e) =>
      Array.from({ length: cols }, (_, f) => (e === f ? 0 : Number.NEGATIVE_INFINITY)),
    );
    real.forEach((t, i) => {
      const z = rowOf(logits, t);
      const from = gain[expertOf[i]];
      for (let f = 0; f < cols; f++) from[f] = Math.max(from[f], z[f] - z[expertOf[i]]);
    });
    for (let via = 0; via < cols; via++) {
      for (let e = 0; e < cols; e++) {
        for (let f = 0; f < cols; f++) gain[e][f] = Math.max(gain[e][f], gain[e][via] + gain[via][f]);
      }
    }
    const allowed = 64 * cols * U * Math.max(0, ...logits.data.map(Math.abs));
    for (let e = 0; e < cols; e++) assertWithin(gain[e][e], 0, allowed, `a round of moves from expert ${e}`);
  },
  ['several places', 'padding between'],
);

property(
  'D9 no random balanced assignment scores more',
  fc.tuple(layers({ routers: ['base_train'], masks: ['absent'] }), fc.nat()),
  ([layer, seed], reach) => {
    const { logits, selection } = selectIn(layer);
    const numTokens = layer.x.rows;
    const score = (expertOf: (t: number) => number) =>
      total(Array.from({ length: numTokens }, (_, t) => logits.data[t * logits.cols + expertOf(t)]));
    const best = score(t => expertsOf({ selection }, t)[0]);
    const allowed = 2 * numTokens * U * total(logits.data.map(Math.abs));
    for (let trial = 0; trial < 20; trial++) {
      const order = shuffled(numTokens, seed + trial);
      const random = score(t => order[t] % logits.cols);
      if (random < best) reach('a worse one');
      assert.ok(random <= best + allowed, `${random} > ${best}`);
    }
  },
  ['a worse one'],
);

property(
  'D9 the total score does not depend on the order of the tokens or of the experts',
  fc.tuple(layers({ routers: ['base_train'] }), fc.nat()),
  ([layer, seed], reach) => {
    const totalOf = (some: Layer) => {
      const { logits, selection } = selectIn(some);
      return total(realTokens(logits.rows, some.inputs).map(t => rowOf(logits, t)[expertsOf({ selection }, t)[0]]));
    };
    const tokens = shuffled(layer.x.rows, seed);
    const skip = layer.config.skipExpert ? [0] : [];
    const columns = [...skip, ...shuffled(layer.config.numExperts, seed).map(e => e + skip.length)];
    const { logits } = selectIn(layer);
    const allowed = 4 * layer.x.rows * U * total(logits.data.map(Math.abs));
    if (layer.x.rows > 2) reach('several tokens');
    assertWithin(totalOf(takeTokens(layer, tokens)), totalOf(layer), allowed, 'total of the tokens in another order');
    assertWithin(
      totalOf(reorderExperts(layer, columns)),
      totalOf(layer),
      allowed,
      'total of the experts in another order',
    );
  },
  ['several tokens'],
);

property(
  'D10 a skip expert is chosen as any other column is',
  layers({ routers: routerNames.filter(router => router !== 'hash'), skipExpert: true }),
  (layer, reach) => {
    const { skipExpert: _, numExperts, ...config } = layer.config;
    const { selection } = selectIn(layer);
    const plain = selectIn({ ...layer, config: { ...config, numExperts: numExperts + 1 } }).selection;
    if (selection.expertIndex.includes(0)) reach('chosen');
    assert.deepEqual(selection, plain);
  },
  ['chosen'],
);

property(
  'D15 padded tokens select nothing, and the others what they select without them',
  layers({ masks: ['some padded', 'some padded', 'all padded'] }),
  (layer, reach) => {
    const real = realTokens(layer.x.rows, layer.inputs);
    const { selection } = selectIn(layer);
    const without = selectIn(takeTokens(layer, real)).selection;
    if (real.length > 0 && real.length < layer.x.rows) reach('some padded');
    if (real.length === 0 && layer.x.rows > 0) reach('all padded');
    assert.equal(selection.tokenOffsets.length, layer.x.rows + 1);
    for (let t = 0; t < layer.x.rows; t++) {
      const expected = real.includes(t) ? expertsOf({ selection: without }, real.indexOf(t)) : [];
      assertSame(expertsOf({ selection }, t), expected, `token ${t}`);
    }
  },
  ['some padded', 'all padded'],
);
