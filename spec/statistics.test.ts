/** Rules S1 and S2: statistics and cost, recounted from tables [T][E], and as the authors' own code printed them. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  type Config,
  denseFlops,
  forward,
  type Matrix,
  type RouterName,
  reference,
  type Statistics,
  statisticsOf,
  type Trace,
  zeros,
} from 'xmoe';
import { readSafetensors, toFloat64 } from 'xmoe/safetensors';
import { type Layer, layers, noDrop, routerNames } from 'xmoe/spec';
import { assertSame, assertWithin, U } from './close.js';
import { keptIn } from './plain.js';
import { property } from './property.js';
import { pairsOf, realTokens, rowOf, total } from './tables.js';

function traceOf({ x, weights, config, inputs }: Layer): Trace {
  return forward(reference, x, weights, config, inputs);
}

/** The statistics by their definitions, from which pairs were selected, kept and first. */
function recount({ plan, experts }: Trace, layer: Layer): Statistics {
  const { numExperts: numColumns } = plan.selection;
  const tokens = realTokens(layer.x.rows, layer.inputs);
  const columns = Array.from({ length: numColumns }, (_, e) => e);
  const realColumns = layer.config.skipExpert ? columns.slice(1) : columns;
  const selected = new Set(pairsOf(plan).map(({ token, expert }) => token * numColumns + expert));
  const first = new Set(pairsOf(plan).flatMap(p => (p.rank === 0 ? [p.token * numColumns + p.expert] : [])));
  const isKept = keptIn(plan);
  const isSelected = (t: number, e: number) => selected.has(t * numColumns + e);
  const isFirst = (t: number, e: number) => first.has(t * numColumns + e);
  const count = (holds: (t: number, e: number) => boolean, of = columns) =>
    total(tokens.map(t => of.filter(e => holds(t, e)).length));
  const share = (holds: (t: number) => boolean) =>
    tokens.length === 0 ? 0 : tokens.filter(holds).length / tokens.length;
  const perToken = (n: number) => (tokens.length === 0 ? 0 : n / tokens.length);

  const firsts = columns.map(e => count(isFirst, [e]));
  const mean = total(firsts) / numColumns;
  const deviation = Math.sqrt(total(firsts.map(n => (n - mean) ** 2)) / numColumns);
  const hidden = Array.from({ length: experts.hidden.rows }, (_, i) => i)
    .filter(i => i >= (layer.config.skipExpert ? plan.expertOffsets[1] : 0))
    .flatMap(i => rowOf(experts.hidden, i));
  return {
    selectedPerToken: perToken(count(isSelected)),
    keptPerToken: perToken(count(isKept)),
    tokensWithDrop: share(t => columns.some(e => isSelected(t, e) && !isKept(t, e))),
    tokensWithoutFirst: share(t => columns.some(e => isFirst(t, e) && !isKept(t, e))),
    expertsNotFull:
      tokens.length === 0 ? 0 : realColumns.filter(e => count(isKept, [e]) < plan.capacity).length / realColumns.length,
    tokensPerExpert: Float64Array.from(columns, e => perToken(count(isSelected, [e]))),
    top1Variation: mean === 0 ? 0 : deviation / mean,
    hiddenActive: hidden.length === 0 ? 0 : hidden.filter(h => h > 0).length / hidden.length,
  };
}

property(
  'S1 the statistics are those of a recount over every token and expert',
  layers(),
  (layer, reach) => {
    const trace = traceOf(layer);
    const { statistics } = trace;
    const expected = recount(trace, layer);
    for (const [name, value] of Object.entries(expected)) {
      const actual = statistics[name as keyof Statistics];
      if (typeof value !== 'number') assertSame(actual as Float64Array, value, name);
      else assertWithin(actual as number, value, 64 * U * value, name);
    }
    assert.deepEqual(Object.keys(statistics).sort(), Object.keys(expected).sort());
    if (expected.tokensWithDrop > expected.tokensWithoutFirst) reach('later choices lost');
    if (expected.tokensWithoutFirst > 0) reach('first choices lost');
    if (layer.config.skipExpert && statistics.tokensPerExpert[0] > 0) reach('a skip expert');
    if (expected.expertsNotFull > 0 && expected.expertsNotFull < 1) reach('some experts full');
    if (layer.inputs.tokenMask?.includes(0) && expected.selectedPerToken > 0) reach('padding');
  },
  ['first choices lost', 'a skip expert', 'some experts full', 'padding'],
);

property(
  'S1 a token may keep its first choice and lose another',
  layers({ routers: ['threshold', 'topk'], masks: ['absent'], large: false }),
  (layer, reach) => {
    const { statistics } = traceOf(layer);
    const { tokensWithDrop, tokensWithoutFirst, selectedPerToken, keptPerToken } = statistics;
    if (tokensWithDrop > tokensWithoutFirst) reach('later choices lost');
    assert.ok(tokensWithoutFirst <= tokensWithDrop && tokensWithDrop <= 1);
    assert.ok(keptPerToken <= selectedPerToken);
    assert.equal(keptPerToken === selectedPerToken, tokensWithDrop === 0);
  },
  ['later choices lost'],
);

property('S1 all statistics are 0 without a real token', layers({ masks: ['all padded'] }), layer => {
  for (const value of Object.values(traceOf(layer).statistics).flat()) {
    assertSame(typeof value === 'number' ? [value] : value, Array(value.length ?? 1).fill(0), 'a statistic');
  }
});

property(
  'S2 the cost is counted product by product',
  layers(),
  (layer, reach) => {
    const { x, weights, config } = layer;
    const { plan, cost } = traceOf(layer);
    const isKept = keptIn(plan);
    const numSkip = config.skipExpert ? 1 : 0;
    let [router, experts] = [0, 0];
    for (let t = 0; t < x.rows; t++) {
      for (let e = 0; e < plan.selection.numExperts; e++) {
        if (config.router !== 'hash') router += 2 * x.cols;
        if (e < numSkip || !isKept(t, e)) continue;
        const matrices = [weights.up[e - numSkip], weights.gate?.[e - numSkip], weights.down[e - numSkip]];
        for (const a of matrices) experts += 2 * (a ? a.rows * a.cols : 0);
      }
    }
    assert.deepEqual(cost, { router, experts, total: router + experts });
    if (weights.gate && experts > 0) reach('gated');
    if (numSkip && plan.expertOffsets[1] > 0) reach('a skip expert');
    if (plan.kept.includes(0)) reach('drops');
  },
  ['gated', 'a skip expert', 'drops'],
);

property(
  'S2 every token through every expert costs what the dense FFN did',
  layers({ routers: ['dense'], activations: ['relu', 'silu'], masks: ['absent'], capacities: noDrop }),
  layer => {
    const { x, config, weights } = layer;
    const denseFf = config.numExperts * weights.up[0].rows;
    assert.equal(traceOf(layer).cost.experts, denseFlops(x.rows, x.cols, denseFf));
  },
);

/** A recorded layer up to its plan, and the statistics that the authors' code printed. */
interface Recorded {
  readonly name: string;
  readonly statistics: Statistics;
  readonly printed: Readonly<Record<string, number | readonly number[]>>;
  readonly isOpen: boolean;
}

const recordings = new URL('../../spec/recordings/', import.meta.url);

function recorded(name: string): Recorded {
  const { tensors, metadata } = readSafetensors(readFileSync(new URL(name, recordings)));
  const matrix = (key: string): Matrix | undefined => {
    const tensor = tensors.get(key);
    return tensor && { rows: tensor.shape[0], cols: tensor.shape[1], data: toFloat64(tensor, key) };
  };
  const [x, router, noise] = [matrix('x')!, matrix('router.weight')!, matrix('noise')];
  const given = JSON.parse(metadata.get('config')!);
  const config: Config = {
    router: given.router as RouterName,
    numExperts: router.rows,
    threshold: given.threshold,
    topK: given.top_k,
    capacityFactor: given.drop_tokens === false ? null : given.capacity_factor,
    minCapacity: given.min_capacity,
    activation: given.activation,
  };
  const routing = reference.route(x, { router, up: [], down: [] });
  const plan = reference.dispatch(routing, noise ? { noise } : {}, config);
  return {
    name,
    statistics: statisticsOf(plan, zeros(plan.tokenIndex.length, 1), config),
    printed: JSON.parse(metadata.get('stats')!),
    isOpen: given.drop_order_open,
  };
}

test('S1 the statistics are those that the authors’ code printed for its recorded calls', () => {
  const cases = readdirSync(recordings)
    .filter(name => name.endsWith('.safetensors'))
    .map(recorded);
  const withStatistics = cases.filter(({ printed }) => Object.keys(printed).length > 0);
  assert.ok(withStatistics.length > 15, `${withStatistics.length} recordings with statistics`);
  for (const { name, statistics, printed, isOpen } of withStatistics) {
    const ours: Record<string, number | readonly number[]> = {
      chosen_num: statistics.keptPerToken,
      want_num: statistics.selectedPerToken,
      drop_rate: 100 * statistics.tokensWithoutFirst,
      expert_not_full_ratio: statistics.expertsNotFull,
      receive_ratio: Array.from(statistics.tokensPerExpert, share => 100 * share),
      balance_coe: statistics.top1Variation,
      // which tokens lose within a rank is open for top-k
      ...(!isOpen && { token_not_full_ratio: statistics.tokensWithDrop }),
    };
    for (const [key, value] of Object.entries(ours)) {
      const [a, b] = [value, printed[key]].map(v => (typeof v === 'number' ? [v] : v));
      assert.equal(a.length, b.length, `${name}: ${key}`);
      a.forEach((v, i) => {
        assertWithin(v, b[i], 4 * 2 ** -24 * Math.abs(b[i]), `${name}: ${key} ${i}`);
      });
    }
  }
});

property(
  'S1 the top-1 counts vary as Σf² says: variation² = E·Σf² − 1',
  layers({ routers: routerNames }),
  (layer, reach) => {
    const { plan, statistics } = traceOf(layer);
    const firsts = pairsOf(plan).filter(({ rank }) => rank === 0);
    if (firsts.length === 0) return;
    const { numExperts } = plan.selection;
    const shares = Array.from(
      { length: numExperts },
      (_, e) => firsts.filter(({ expert }) => expert === e).length / firsts.length,
    );
    const squares = numExperts * total(shares.map(f => f * f));
    assertWithin(statistics.top1Variation ** 2, squares - 1, 64 * (numExperts + 4) * U * squares, 'variation²');
    if (squares > 1.01) reach('unbalanced');
  },
  ['unbalanced'],
);
