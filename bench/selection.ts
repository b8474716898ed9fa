/**
 * How often does the backend select other experts than the reference? Random tokens through its router and selection, held
 * against float64; and for contrast some of them with logits that are summed in float32, one term after the other.
 *
 * Options  --tokens 1000000  --contrast 200000  --threshold 0.9,0.5  --json  --rows FILE
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type Config, type Matrix, route, type Selection, selectThreshold, softmax, type Weights } from 'xmoe';
import { wasmBackend } from 'xmoe/wasm';
import { routerOf, uniformNumbers } from './layers.js';
import { figures, note, outputOptions, table } from './report.js';
import { differences, nearest } from './selection-margins.js';

/** Tokens of one call. */
const BATCH = 4096;

/** The routers of S1 and S2. */
const routerShapes = [
  { dModel: 768, numExperts: 64 },
  { dModel: 512, numExperts: 32 },
];

const { values: options } = parseArgs({
  options: {
    ...outputOptions,
    tokens: { type: 'string', default: '1000000' },
    contrast: { type: 'string', default: '200000' },
    threshold: { type: 'string', default: '0.9,0.5' },
  },
});
const [numTokens, numContrasted] = [Number(options.tokens), Number(options.contrast)];
const thresholds = options.threshold.split(',').map(Number);

/** A router and its selection at each threshold. */
interface Candidate {
  readonly name: string;
  readonly numTokens: number;
  select(x: Matrix, weights: Weights): (threshold: number) => Selection;
}

/** What a candidate decided at one shape and threshold; what `--json` prints. */
interface Outcome {
  readonly candidate: string;
  readonly node: string;
  readonly dModel: number;
  readonly numExperts: number;
  readonly threshold: number;
  numTokens: number;
  /** Pairs that the reference selected. */
  numSelected: number;
  /** Tokens with the same experts in another order. */
  numReordered: number;
  /** Of each token with other experts: how near the reference's probabilities were to that. */
  readonly margins: number[];
}

const backends = [
  await wasmBackend({ deterministic: true }),
  await wasmBackend({ features: { relaxedSimd: 'enable' } }).catch((error: Error) =>
    note(`relaxed left out: ${error.message}`),
  ),
].filter(backend => backend !== undefined);
const candidates: Candidate[] = backends.map(backend => ({
  name: `xmoe/wasm ${backend.info.target}`,
  numTokens,
  select(x, weights) {
    const routing = backend.route(x, weights);
    return threshold => backend.dispatch(routing, {}, configOf(weights, threshold)).selection;
  },
}));
candidates.push({
  name: 'logits summed in float32',
  numTokens: numContrasted,
  select(x, weights) {
    const probs = softmax(float32Product(x, weights.router));
    return threshold => selectThreshold(probs, threshold);
  },
});

const outcomes: Outcome[] = routerShapes.flatMap(({ dModel, numExperts }) => judge(dModel, numExperts));
for (const backend of backends) backend.dispose();
if (options.rows) writeFileSync(options.rows, JSON.stringify(outcomes));
if (options.json) console.log(JSON.stringify(outcomes, null, 2));
else console.log(outcomeTable().join('\n'));

function judge(dModel: number, numExperts: number): Outcome[] {
  const uniform = uniformNumbers();
  const weights = weightsOf(routerOf(numExperts, dModel, uniform));
  const start = performance.now();
  const found = candidates.flatMap(({ name: candidate }) =>
    thresholds.map((threshold): Outcome => {
      const nothing = { numTokens: 0, numSelected: 0, numReordered: 0, margins: [] };
      return { candidate, node: process.version, dModel, numExperts, threshold, ...nothing };
    }),
  );
  for (let first = 0; first < numTokens; first += BATCH) {
    const rows = Math.min(BATCH, numTokens - first);
    const x = { rows, cols: dModel, data: uniform(rows * dModel, 1) };
    const { probs } = route({ ...x, data: Float64Array.from(x.data) }, weights);
    const exact = new Map(thresholds.map(threshold => [threshold, selectThreshold(probs, threshold)]));
    for (const candidate of candidates.filter(({ numTokens }) => first < numTokens)) {
      const select = candidate.select(x, weights);
      for (const outcome of found) {
        if (outcome.candidate !== candidate.name) continue;
        const expected = exact.get(outcome.threshold)!;
        const { others, reordered } = differences(expected, select(outcome.threshold));
        outcome.numTokens += rows;
        outcome.numSelected += expected.expertIndex.length;
        outcome.numReordered += reordered.length;
        outcome.margins.push(...others.map(token => nearest(probs, token, outcome.threshold)));
      }
    }
  }
  note(`d ${dModel}, E ${numExperts}: ${((performance.now() - start) / 1000).toFixed(0)} s`);
  return found;
}

/** Experts of width 1: the router is all that counts. In float64, as the reference's product likes it. */
function weightsOf(router: Matrix): Weights {
  const { rows: numExperts, cols: dModel } = router;
  const experts = (rows: number, cols: number) =>
    Array.from({ length: numExperts }, () => ({ rows, cols, data: new Float64Array(dModel) }));
  return {
    router: { ...router, data: Float64Array.from(router.data) },
    up: experts(1, dModel),
    down: experts(dModel, 1),
  };
}

function configOf({ router }: Weights, threshold: number): Config {
  return { numExperts: router.rows, router: 'threshold', threshold, capacityFactor: null, activation: 'relu' };
}

/** x wᵀ, each sum of float32 in order of k. */
function float32Product(x: Matrix, w: Matrix): Matrix {
  const [a, b] = [Float32Array.from(x.data), Float32Array.from(w.data)];
  const data = new Float64Array(x.rows * w.rows);
  const k = x.cols;
  for (let i = 0; i < x.rows; i++) {
    for (let j = 0; j < w.rows; j++) {
      let sum = 0;
      for (let l = 0; l < k; l++) sum = Math.fround(sum + Math.fround(a[i * k + l] * b[j * k + l]));
      data[i * w.rows + j] = sum;
    }
  }
  return { rows: x.rows, cols: w.rows, data };
}

function outcomeTable(): string[] {
  const titles = [
    'router',
    'τ',
    'experts per token',
    'arithmetic',
    'tokens',
    'other experts',
    'of a million',
    'their margins',
  ];
  const cells = outcomes.map(({ candidate, dModel, numExperts, threshold, numTokens, numSelected, margins }) => {
    const range = margins.length > 0 ? [Math.min(...margins), Math.max(...margins)].map(m => m.toExponential(1)) : [];
    const perToken = figures(numSelected / numTokens);
    const rate = figures((1e6 * margins.length) / numTokens);
    return [
      `d ${dModel}, E ${numExperts}`,
      threshold,
      perToken,
      candidate,
      numTokens,
      margins.length,
      rate,
      range.join('–'),
    ];
  });
  return [`Node ${process.version}:`, '', ...table(titles, cells, 4)];
}
