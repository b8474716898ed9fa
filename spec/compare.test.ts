/** `runCase`: a backend that is right but for one stage is blamed on that stage; what the semantics leave open is not. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  type Backend,
  type Matrix,
  planOf,
  reference,
  referenceF32,
  selectExceed,
  selectThreshold,
  selectWithin,
} from 'xmoe';
import { type LayerCase, type NamedTensor, readLayerCase } from 'xmoe/layer-case';
import { runCase } from 'xmoe/oracle';

const load = (name: string) =>
  readLayerCase(readFileSync(new URL(`../../spec/recordings/${name}.safetensors`, import.meta.url)));

const scaled = (a: Matrix, factor: number): Matrix => ({ ...a, data: a.data.map((v: number) => v * factor) });

/** The reference with one stage replaced. */
const faulty = (stages: Partial<Backend>): Backend => ({ ...reference, name: 'faulty', ...stages });

function firstFault(backend: Backend, layerCase: LayerCase, withGradients = false) {
  return runCase(backend, layerCase, withGradients).reports.find(({ verdict }) => verdict === 'disagree');
}

const planted: [string, string, Partial<Backend>][] = [
  [
    'logits off by 1e-11 of themselves',
    'logits',
    {
      route: (x, w) => ({ ...reference.route(x, w), logits: scaled(reference.route(x, w).logits, 1 + 1e-11) }),
    },
  ],
  [
    'probabilities renormalised to 2',
    'probs',
    {
      route: (x, w) => ({ ...reference.route(x, w), probs: scaled(reference.route(x, w).probs, 2) }),
    },
  ],
  [
    'an experts’ output off by 1e-9',
    'y',
    {
      runExperts: (...args) => ({
        ...reference.runExperts(...args),
        out: scaled(reference.runExperts(...args).out, 1 + 1e-9),
      }),
    },
  ],
  [
    'weights squared in the combine',
    'y',
    {
      combine: (out, plan) =>
        reference.combine(out, { ...plan, combineWeight: plan.combineWeight.map((w: number) => w * w) }),
    },
  ],
  [
    'NaN in one place of y',
    'y',
    {
      combine: (out, plan) => {
        const y = reference.combine(out, plan);
        y.data[5] = Number.NaN;
        return y;
      },
    },
  ],
  [
    'capacity one too small',
    'kept',
    {
      dispatch: (routing, inputs, config) => reference.dispatch(routing, inputs, { ...config, capacityFactor: 0.5 }),
    },
  ],
  [
    'a threshold of 0.8',
    'selected',
    {
      dispatch: (routing, inputs, config) => reference.dispatch(routing, inputs, { ...config, threshold: 0.8 }),
    },
  ],
  [
    'gradients of twice the loss',
    'loss',
    {
      backward: (trace, x, w, config, gradY, inputs) => {
        const grad = reference.backward!(trace, x, w, config, gradY, inputs);
        return { ...grad, loss: 2 * grad.loss };
      },
    },
  ],
  [
    'a gradient of x without the router’s part',
    'grad.x',
    {
      backward: (trace, x, w, config, gradY, inputs) => {
        const constant = { ...w, router: scaled(w.router, 0) };
        return {
          ...reference.backward!(trace, x, w, config, gradY, inputs),
          x: reference.backward!(trace, x, constant, config, gradY, inputs).x,
        };
      },
    },
  ],
];

for (const [fault, stage, stages] of planted) {
  test(`${fault} is blamed on ${stage}`, () => {
    const found = firstFault(faulty(stages), load('capacity-tight'), true);
    assert.equal(found?.stage, stage);
    assert.ok(!(found.error <= found.allowed));
    assert.notEqual(found.detail, '');
  });
}

test('after a wrong selection the later stages are judged on the recorded one', () => {
  const { reports } = runCase(faulty(planted[6][2]), load('threshold-basic'), true);
  assert.deepEqual(
    reports.filter(r => r.verdict === 'disagree').map(r => r.stage),
    ['selected'], // kept is right for that selection
  );
});

/** One token whose four probabilities are ¼, exact in every format; each expert says 6, and the first `count` were recorded. */
function exactTie(threshold: number, count: number): LayerCase {
  const ones = (rows: number, cols: number): Matrix => ({ rows, cols, data: new Float64Array(rows * cols).fill(1) });
  const experts = { shape: [1, 4], data: Uint8Array.from([0, 1, 2, 3], e => (e < count ? 1 : 0)) };
  return {
    name: 'exact',
    config: { router: 'threshold', numExperts: 4, threshold, capacityFactor: null, activation: 'relu' },
    x: ones(1, 2),
    weights: { router: ones(4, 2), up: Array(4).fill(ones(3, 2)), down: Array(4).fill(ones(2, 3)) },
    inputs: {},
    recorded: new Map<string, NamedTensor>([
      ['selected', experts],
      ['kept', experts],
      ['y', { shape: [1, 2], data: new Float64Array(2).fill(count * 0.25 * 6) }],
    ]),
    dropOrderOpen: false,
  };
}

/** A backend that selects as a relative does. */
const selecting = (select: typeof selectThreshold) =>
  faulty({
    dispatch: (routing, _inputs, config) => {
      const selection = select(routing.probs, config.threshold!);
      return planOf(selection, new Uint8Array(selection.expertIndex.length).fill(1), 1, routing, config);
    },
  });

test('D4 the named relatives are told from XMoE, and named', () => {
  assert.equal(firstFault(selecting(selectThreshold), exactTie(0.5, 2)), undefined);
  assert.match(firstFault(selecting(selectExceed), exactTie(0.5, 2))!.detail, /selects as the "exceed" relative/);
  assert.equal(firstFault(selecting(selectThreshold), exactTie(0.6, 3)), undefined);
  assert.match(firstFault(selecting(selectWithin), exactTie(0.6, 3))!.detail, /selects as the "within" relative/);
});

test('D12 an open drop order may differ, but not in how many are kept, nor in rank', () => {
  const ofKept = (layerCase: LayerCase, backend = reference) =>
    runCase(backend, layerCase).reports.find(({ stage }) => stage === 'kept')!.verdict;
  const open = load('topk-2');
  assert.equal(ofKept(open), 'admissible');
  assert.equal(ofKept({ ...open, dropOrderOpen: false }), 'admissible'); // the router leaves it open, whatever the file says
  assert.equal(
    ofKept(open, faulty({ dispatch: (r, i, c) => reference.dispatch(r, i, { ...c, capacityFactor: 1.5 }) })),
    'disagree',
  );

  // expert 0 kept token 17, its first choice, and dropped token 20, its second: the other way round is wrong
  const kept = open.recorded.get('kept')!;
  const swapped = kept.data.map((flag: number, i: number) => (i === 17 * 8 || i === 20 * 8 ? 1 - flag : flag));
  const recorded = new Map(open.recorded).set('kept', { ...kept, data: swapped as Uint8Array });
  assert.equal(ofKept({ ...open, recorded }), 'disagree');
});

test('a backend without backward, and a case without grad.y, have no gradients', () => {
  assert.throws(
    () => runCase(referenceF32, load('odd-sizes'), true),
    /"backend" expected one with a backward, got reference-f32/,
  );
  const { gradY, ...rest } = load('odd-sizes');
  assert.ok(gradY);
  assert.throws(() => runCase(reference, rest, true), /"grad.y" expected the cotangent/);
});

test('which of equal experts the loss counts as the first is open, and another loss is not', () => {
  // the first token is level between the experts; the second prefers expert 1, so mean p is [0.3, 0.7]
  const z = Math.log(9);
  const layerCase: LayerCase = {
    name: 'level',
    config: { router: 'dense', numExperts: 2, capacityFactor: null, activation: 'relu' },
    x: { rows: 2, cols: 1, data: Float64Array.of(0, z) },
    weights: {
      router: { rows: 2, cols: 1, data: Float64Array.of(0, 1) },
      up: [1, 2].map(v => ({ rows: 1, cols: 1, data: Float64Array.of(v) })),
      down: [1, 2].map(v => ({ rows: 1, cols: 1, data: Float64Array.of(v) })),
    },
    inputs: {},
    recorded: new Map(),
    dropOrderOpen: false,
  };
  const lossReport = (loss: number, backend: Backend = reference, x = layerCase.x) => {
    const recorded = new Map([['load_balancing_loss', { shape: [1], data: Float64Array.of(loss) }]]);
    return runCase(backend, { ...layerCase, x, recorded }).reports[0];
  };
  const [lower, higher] = [2 * (0.3 / 2 + 0.7 / 2), 2 * 0.7]; // expert 0 first, expert 1 first
  assert.equal(lossReport(lower).verdict, 'agree');
  assert.equal(lossReport(higher).verdict, 'admissible');
  assert.equal(lossReport(higher + 0.01).verdict, 'disagree');

  // where nothing is open, a loss of wrong probabilities is wrong, though it is right for them
  const flatter = faulty({ route: (x, w) => reference.route(scaled(x, 0.5), w) });
  const clear = { rows: 2, cols: 1, data: Float64Array.of(z, z) }; // p of expert 1 is 0.9 for both
  assert.equal(lossReport(1.8, reference, clear).verdict, 'agree');
  assert.equal(lossReport(1.8, flatter, clear).verdict, 'disagree');
});
