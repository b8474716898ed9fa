/** Rules M1-M3: a margin is how far its decision was from going the other way, no more and no less. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  type DispatchPlan,
  type Margin,
  type Matrix,
  marginsOf,
  type Routing,
  reference,
  routers,
  softmax,
} from 'xmoe';
import { generic, matrixOf, uniform } from 'xmoe/cases';
import { type Layer, layers, softmaxRouters, withCapacity } from 'xmoe/spec';
import { assertWithin, U } from './close.js';
import { probabilityError, scaled } from './plain.js';
import { property } from './property.js';
import { expertsOf, pairsOf, realTokens, rowOf, total } from './tables.js';

/** A layer up to its decisions. */
interface Decided extends Layer {
  readonly routing: Routing;
  readonly plan: DispatchPlan;
  readonly margins: readonly Margin[];
}

function decide(layer: Layer): Decided {
  const routing = reference.route(layer.x, layer.weights);
  const plan = reference.dispatch(routing, layer.inputs, layer.config);
  return { ...layer, routing, plan, margins: marginsOf(routing, plan, layer.config, layer.inputs) };
}

const oneSeatOrMore = withCapacity.filter(({ minCapacity }) => minCapacity === 1);

const withMargins = [...softmaxRouters, 'base_eval'] as const;

/**
 * Every decision on other numbers: first choices, selected sets, ranks where they decide (at experts that dropped tokens
 * on the layer's own numbers), and who is kept, or how many of each rank where the order within one is open.
 */
function decisions({ routing, plan, config, inputs }: Decided, moved: Routing = routing) {
  const now = reference.dispatch(moved, inputs, config);
  const real = realTokens(moved.probs.rows, inputs);
  const dropping = new Set(pairsOf(plan).flatMap(({ expert, kept }) => (kept ? [] : [expert])));
  const isOpen = routers[config.router].dropOrder === 'rank';
  const pairs = pairsOf(now);
  return {
    first: real.map(t => (routers[config.router].balanced ? firstOf(rowOf(moved.probs, t)) : expertsOf(now, t)[0])),
    selected: real.map(t => expertsOf(now, t).sort((a, b) => a - b)),
    ranks: pairs
      .filter(({ expert }) => dropping.has(expert))
      .map(({ token, expert, rank }) => [token, expert, rank].join())
      .sort(),
    kept: pairs
      .filter(({ kept }) => kept)
      .map(({ token, expert, rank }) => [expert, isOpen && dropping.has(expert) ? -rank - 1 : token].join())
      .sort(),
  };
}

function firstOf(values: readonly number[]): number {
  return values.indexOf(Math.max(...values));
}

/** The least margin of what is compared in probabilities, or in logits. */
function least(margins: readonly Margin[], of: 'probs' | 'logits'): number {
  return Math.min(...margins.filter(m => (m.kind === 'order' ? m.of : 'probs') === of).map(({ value }) => value));
}

function changed(a: Matrix, change: (i: number, j: number) => number): Matrix {
  return matrixOf(a.rows, a.cols, (i, j) => a.data[i * a.cols + j] + change(i, j));
}

/** Errors of p and of z, each token's below half of the least margin together: a mass sums E of them, a gap has two. */
function assertSteady(layer: Layer, seed: number, reach: (place: string) => void): void {
  const decided = decide(layer);
  const { routing, margins } = decided;
  const { cols } = routing.probs;
  const roomOf = (of: 'probs' | 'logits') => Math.max(0, 0.49 * Math.min(1, least(margins, of)) - 2 ** -40);
  const [roomInProbs, roomInLogits] = [roomOf('probs'), roomOf('logits')];
  const error = (t: number, e: number) => generic(uniform(seed, t, e)) / 2; // less than 1
  const probs = changed(routing.probs, (t, e) => (roomInProbs / cols) * error(t, e));
  const logits = changed(routing.logits, (t, e) => roomInLogits * error(t, e));
  if (roomInProbs > 0) for (const { kind } of margins) reach(kind);
  if (roomInLogits > 0 && margins.some(m => m.kind === 'order' && m.of === 'logits')) reach('logits');
  assert.deepEqual(decisions(decided, { logits, probs }), decisions(decided));
}

property(
  'M1 M2 M3 errors that together stay below the least margin change no decision of XMoE',
  fc.tuple(
    layers({ routers: ['threshold'], logits: ['generic'], capacities: oneSeatOrMore, maxSize: 9, large: false }),
    fc.nat(),
  ),
  ([layer, seed], reach) => assertSteady(layer, seed, reach),
  ['threshold', 'order', 'capacity'],
);

property(
  'M2 errors that together stay below the least margin change no decision of the other routers',
  fc.tuple(layers({ routers: ['dense', 'topk', 'switch', 'base_eval'], logits: ['generic', 'steep'] }), fc.nat()),
  ([layer, seed], reach) => assertSteady(layer, seed, reach),
  ['order', 'logits'],
);

property(
  'M2 only real tokens have margins, and a router that compares no neighbours has none',
  layers({ masks: ['some padded'], large: false }),
  (layer, reach) => {
    const { margins, config } = decide(layer);
    const real = realTokens(layer.x.rows, layer.inputs);
    for (const { token } of margins) assert.ok(real.includes(token), `token ${token} is padding`);
    if (config.router === 'hash' || config.router === 'base_train') assert.deepEqual(margins, []);
    if (margins.length > 0 && real.length < layer.x.rows) reach('padding beside margins');
  },
  ['padding beside margins'],
);

property(
  'M1 there is a margin at each rank up to the first rejected: how far the mass before it is from τ',
  layers({ routers: ['threshold'] }),
  (layer, reach) => {
    const { plan, routing, margins, config } = decide(layer);
    const all = reference.dispatch(routing, layer.inputs, { ...config, router: 'dense' });
    for (const t of realTokens(layer.x.rows, layer.inputs)) {
      const [p, order] = [rowOf(routing.probs, t), expertsOf(all, t)];
      const numCompared = Math.min(expertsOf(plan, t).length, p.length - 1);
      const own = margins.filter(m => m.kind === 'threshold' && m.token === t);
      assert.deepEqual(
        own.map(m => m.rank),
        Array.from({ length: numCompared }, (_, i) => i + 1),
      );
      for (const { rank, expert, value } of own) {
        assert.equal(expert, order[rank]);
        const mass = total(order.slice(0, rank).map(e => p[e]));
        assertWithin(value, Math.abs(mass - config.threshold!), 4 * p.length * U, `token ${t}, rank ${rank}`);
      }
      if (numCompared === 1) reach('first rejected');
      if (numCompared > 1) reach('several');
    }
  },
  ['first rejected', 'several'],
);

/** A little more than a margin, against the rounding of what is compared. */
function beyond(value: number, magnitude: number): number {
  return value + 2 ** -40 * Math.max(2 ** -10, magnitude);
}

property(
  'M1 a mass that moves by a little more than its margin decides otherwise',
  layers({
    routers: ['threshold'],
    thresholds: fc.integer({ min: 1, max: 64 }).map(n => n / 64),
    masks: ['absent'],
    maxSize: 7,
    large: false,
  }),
  (layer, reach) => {
    const decided = decide(layer);
    const { routing, plan, margins, config, inputs } = decided;
    for (const margin of margins) {
      if (margin.kind !== 'threshold') continue;
      const { token, rank, expert, value } = margin;
      const wasSelected = expertsOf(plan, token).includes(expert);
      // a selected expert goes when the first expert gains, a rejected one comes when the last before it loses
      const last = expertsOf(plan, token)[wasSelected ? 0 : rank - 1];
      const step = wasSelected ? beyond(value, 1) : -beyond(value, 1);
      const probs = changed(routing.probs, (t, e) => (t === token && e === last ? step : 0));
      const now = reference.dispatch({ ...routing, probs }, inputs, config);
      assert.equal(expertsOf(now, token).includes(expert), !wasSelected, `token ${token}, rank ${rank}`);
      reach(wasSelected ? 'a selected expert goes' : 'a rejected one comes');
    }
  },
  ['a selected expert goes', 'a rejected one comes'],
);

property(
  'M2 neighbours that change places by a little more than their margin change a decision',
  layers({ routers: withMargins, masks: ['absent'], large: false, maxSize: 9 }),
  (layer, reach) => {
    const decided = decide(layer);
    const { routing, margins } = decided;
    const before = decisions(decided);
    for (const margin of margins) {
      if (margin.kind !== 'order') continue;
      const { of, token, expert, nextExpert, value } = margin;
      const values = routing[of];
      const noise = of === 'logits' && layer.inputs.noise ? rowOf(layer.inputs.noise, token) : undefined;
      const compared = rowOf(values, token).map((v, e) => v + (noise?.[e] ?? 0));
      assert.equal(value, compared[expert] - compared[nextExpert]);
      const step = beyond(value, Math.max(...compared.map(Math.abs))) / 2;
      const moved = changed(values, (t, e) => (t !== token ? 0 : e === expert ? -step : e === nextExpert ? step : 0));
      assert.notDeepEqual(decisions(decided, { ...routing, [of]: moved }), before, JSON.stringify(margin));
      reach(of);
      if (value === 0) reach('a tie');
      if (margin.rank > 0) reach('beyond the first choice');
    }
  },
  ['probs', 'logits', 'a tie', 'beyond the first choice'],
);

property(
  'M2 neighbours without a margin may change places, and nothing else changes',
  layers({ routers: ['threshold', 'dense', 'switch'], large: false, logits: ['generic', 'negative'] }),
  (layer, reach) => {
    const decided = decide(layer);
    const { routing, margins, inputs, config } = decided;
    const all = reference.dispatch(routing, inputs, { ...config, router: 'dense' });
    const before = decisions(decided);
    for (const t of realTokens(layer.x.rows, inputs).slice(0, 3)) {
      const [p, order] = [rowOf(routing.probs, t), expertsOf(all, t)];
      for (let rank = 0; rank + 1 < order.length; rank++) {
        const [a, b] = [order[rank], order[rank + 1]];
        // one that equals a third has an index to go by, which moving does not keep
        if (p[order[rank - 1]] === p[a] || p[b] === p[order[rank + 2]]) continue;
        if (margins.some(m => m.kind === 'order' && m.token === t && m.rank === rank)) continue;
        const swapped = matrixOf(routing.probs.rows, routing.probs.cols, (s, e) =>
          s === t && (e === a || e === b) ? p[e === a ? b : a] : rowOf(routing.probs, s)[e],
        );
        assert.deepEqual(decisions(decided, { ...routing, probs: swapped }), before, `token ${t}, rank ${rank}`);
        if (p[a] !== p[b]) reach('swapped');
      }
    }
  },
  ['swapped'],
  { share: 0.5 },
);

property(
  'M3 a dropped token that gains on the last kept one by a little more than the margin takes its place',
  layers({
    routers: ['threshold'],
    capacities: oneSeatOrMore,
    masks: ['absent'],
    large: false,
  }),
  (layer, reach) => {
    const decided = decide(layer);
    const { routing, plan, margins, config, inputs } = decided;
    const { probs } = routing;
    const keeps = (pairs: ReturnType<typeof pairsOf>, t: number, e: number) =>
      pairs.some(({ token, expert, kept }) => token === t && expert === e && kept);
    for (const margin of margins) {
      if (margin.kind !== 'capacity') continue;
      const { token, droppedToken, expert, value, rank } = margin;
      assert.equal(value, rowOf(probs, token)[expert] - rowOf(probs, droppedToken)[expert]);
      for (const t of [token, droppedToken]) assert.equal(expertsOf(plan, t)[rank], expert);
      assert.ok(keeps(pairsOf(plan), token, expert) && !keeps(pairsOf(plan), droppedToken, expert));
      const step = beyond(value, 1) / 2;
      const moved = changed(probs, (t, e) => (e !== expert ? 0 : t === token ? -step : t === droppedToken ? step : 0));
      const now = reference.dispatch({ ...routing, probs: moved }, inputs, config);
      // the step may change what the two select, which is the business of other margins
      if ([token, droppedToken].some(t => expertsOf(now, t).join() !== expertsOf(plan, t).join())) continue;
      assert.ok(!keeps(pairsOf(now), token, expert) && keeps(pairsOf(now), droppedToken, expert), `expert ${expert}`);
      reach(value === 0 ? 'a tie' : 'a gap');
    }
  },
  ['a tie', 'a gap'],
);

property(
  'M3 an expert that drops has a capacity margin, or its last kept token has a better rank than its first dropped',
  layers({ routers: ['threshold', 'switch', 'base_eval'], capacities: withCapacity }),
  (layer, reach) => {
    const { plan, margins, config } = decide(layer);
    for (let e = 0; e < plan.selection.numExperts; e++) {
      const received = pairsOf(plan).filter(({ expert }) => expert === e);
      const [kept, dropped] = [received.filter(pair => pair.kept), received.filter(pair => !pair.kept)];
      const lastKept = Math.max(...kept.map(({ rank }) => rank));
      const firstDropped = Math.min(...dropped.map(({ rank }) => rank));
      const isDecided = kept.length > 0 && dropped.length > 0 && lastKept === firstDropped;
      const expected = config.router === 'threshold' && isDecided ? 1 : 0;
      assert.equal(margins.filter(m => m.kind === 'capacity' && m.expert === e).length, expected, `expert ${e}`);
      if (dropped.length > 0) reach(expected ? 'decided by p' : config.router);
    }
  },
  ['decided by p', 'switch', 'base_eval'],
);

property(
  'R2 a constant added to the logits of a token keeps every decision, where its margin exceeds the rounding',
  fc.tuple(layers({ routers: softmaxRouters, logits: ['generic', 'generic', 'tied'] }), fc.nat()),
  ([layer, seed], reach) => {
    const decided = decide(layer);
    const { routing, margins } = decided;
    const logits = changed(routing.logits, t => 9 * generic(uniform(seed, t)));
    const largest = Math.max(0, ...routing.logits.data.map(Math.abs), ...logits.data.map(Math.abs));
    const error = probabilityError(
      [...scaled([largest]), ...rowOf(routing.probs, 0).map(() => ({ value: 0, scale: 0 }))],
      0,
    );
    if (least(margins, 'probs') <= 4 * error || least(margins, 'logits') <= 16 * U * largest) return;
    if (margins.length > 0) reach('clear decisions');
    assert.deepEqual(decisions(decided, { logits, probs: softmax(logits) }), decisions(decided));
  },
  ['clear decisions'],
);
