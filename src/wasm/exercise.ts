/** Small layers that put every kernel to use: to compare two ways of running them bit by bit, and to make them hot. */
import type { ActivationName, Config, Floats, Matrix, RoutingInputs, Weights } from '../types.js';
import { modelExercise } from './exercise-model.js';
import type { ExpertFormat } from './formats.js';
import type { KernelModule } from './kernels.js';
import { fused } from './layer.js';
import { Memory } from './memory.js';
import { dispatch, type LayerComputation, type OpenLayer } from './open-layer.js';
import { packWeights } from './packed-weights.js';
import { runAlone } from './pool.js';
import { combine, route, runExperts } from './traced.js';
import { workspaceOver } from './workspace.js';

interface Exercise {
  readonly layer: OpenLayer;
  readonly x: Matrix;
  readonly config: Config;
  readonly inputs: RoutingInputs;
}

const ACTIVATIONS: readonly ActivationName[] = ['relu', 'gelu', 'gelu_tanh', 'silu', 'swiglu', 'geglu'];

/** Each activation with widths of its own [d, m]: whole panels, tails, and less than a vector. */
const WIDTHS = [
  [48, 32],
  [17, 33],
  [40, 7],
  [3, 50],
  [31, 24],
  [66, 19],
] as const;

/** The experts of a checked layer: expert e is given e rows, so that every tile and its neighbours occur. */
const NUM_EXPERTS = 14;

/** Attention with heads that are no vectors, that are whole ones, and that are more than one row takes at once. */
const HEAD_WIDTHS = [5, 24, 40];
/** Tiles, rows over, and more positions than one row takes at once. */
const HEAD_ROWS = 43;

/** What the kernels of a module compute on a fixed set of layers: the bits of every output of every stage. */
export function outputsOf(module: KernelModule, experts: ExpertFormat): Uint32Array[] {
  const outputs = ACTIVATIONS.flatMap((activation, i) => {
    const [dModel, dFf] = WIDTHS[i];
    const byHash = hashed(module, experts, activation, dModel, dFf);
    const bySigmoid: Exercise = { ...byHash, config: { ...byHash.config, router: 'base_eval' }, inputs: {} };
    const byThreshold: Exercise = { ...bySigmoid, config: { ...byHash.config, router: 'threshold', threshold: 0.5 } };
    return [...stagesOf(byHash), ...stagesOf(bySigmoid), ...stagesOf(byThreshold)];
  });
  const ofModel = HEAD_WIDTHS.map(headWidth => modelExercise(module, numbers(), HEAD_ROWS, headWidth)());
  return [...outputs, ...ofModel].map(data => new Uint32Array(Float32Array.from(data).buffer));
}

/** Words of one that differ from those of the other. */
export function numDifferences(actual: readonly Uint32Array[], expected: readonly Uint32Array[]): number {
  return expected.reduce((sum, words, i) => sum + words.filter((word, j) => word !== actual[i][j]).length, 0);
}

/** Runs a module's kernels on layers that are large enough to be timed and to make them hot. Each call is one round. */
export function workload(module: KernelModule, experts: ExpertFormat): () => void {
  const layers = ACTIVATIONS.map(activation => {
    const config: Config = { router: 'dense', numExperts: 2, capacityFactor: null, activation };
    return { ...openExercise(module, experts, config, 64, 96, 96), inputs: {} };
  });
  const model = modelExercise(module, numbers(), 96, 32);
  return () => {
    for (const exercise of layers) compute(exercise, 1);
    model();
  };
}

function stagesOf(exercise: Exercise): Floats[] {
  const { layer, x, config, inputs } = exercise;
  const run = <Result>(stage: LayerComputation<Result>) => runAlone({ space: layer, loops: stage(layer, 1) });
  const routing = run(route(x));
  layer.memory.begin();
  const plan = dispatch(layer, routing, inputs, config);
  const { hidden, out } = run(runExperts(x, plan, config));
  const y = combine(layer, out, plan);
  const inOneCall = [1, 2].map(numThreads => compute(exercise, numThreads));
  return [routing.logits, routing.probs, hidden, out, y, ...inOneCall].map(({ data }) => data);
}

/** y as so many threads compute it, on this one. */
function compute({ layer, x, config, inputs }: Exercise, numThreads: number): Matrix {
  return runAlone({ space: layer, loops: fused(x, inputs, config)(layer, numThreads) }).y;
}

function hashed(
  module: KernelModule,
  experts: ExpertFormat,
  activation: ActivationName,
  dModel: number,
  dFf: number,
): Exercise {
  const rows = Array.from({ length: NUM_EXPERTS }, (_, e) => Array<number>(e).fill(e)).flat();
  const config: Config = { router: 'hash', numExperts: NUM_EXPERTS, capacityFactor: null, activation };
  const inputs = { tokenIds: Int32Array.from(rows), hashTable: Int32Array.from({ length: NUM_EXPERTS }, (_, e) => e) };
  return { ...openExercise(module, experts, config, rows.length, dModel, dFf), inputs };
}

/** With a router's weights whatever the router, so that one layer serves several. */
function openExercise(
  module: KernelModule,
  experts: ExpertFormat,
  config: Config,
  numTokens: number,
  dModel: number,
  dFf: number,
) {
  const { numExperts, activation } = config;
  const next = numbers();
  const matrix = (rows: number, cols: number): Matrix => ({
    rows,
    cols,
    data: Float32Array.from({ length: rows * cols }, next),
  });
  const perExpert = (rows: number, cols: number) => Array.from({ length: numExperts }, () => matrix(rows, cols));
  const isGated = activation === 'swiglu' || activation === 'geglu';
  const weights: Weights = {
    router: matrix(numExperts, dModel),
    up: perExpert(dFf, dModel),
    upBias: matrix(numExperts, dFf),
    ...(isGated && { gate: perExpert(dFf, dModel), gateBias: matrix(numExperts, dFf) }),
    down: perExpert(dModel, dFf),
    downBias: matrix(numExperts, dModel),
  };
  const { memory, packed } = packWeights(weights, module, numBytes => new Memory(numBytes, module.isShared), experts);
  return { layer: { ...workspaceOver(module, memory), packed }, x: matrix(numTokens, dModel), config };
}

/** Numbers from -1 to 1, the same each time: xorshift32 (Marsaglia, Xorshift RNGs, 2003). */
function numbers(): () => number {
  let state = 2463534242;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 31;
  };
}
