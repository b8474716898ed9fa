/** Small layers that put every kernel to use: to compare two ways of running them bit by bit, and to make them hot. */
import type { ActivationName, Config, DispatchPlan, Floats, Matrix, RoutingInputs, Weights } from '../types.js';
import type { KernelModule } from './kernels.js';
import { Memory } from './memory.js';
import { packWeights } from './packed-weights.js';
import { combine, dispatch, type OpenLayer, route, runExperts, runLayer } from './stages.js';
import { begin, workspaceOver } from './workspace.js';

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

/** What the kernels of a module compute on a fixed set of layers: the bits of every output of every stage. */
export function outputsOf(module: KernelModule): Uint32Array[] {
  const outputs = ACTIVATIONS.flatMap((activation, i) => {
    const [dModel, dFf] = WIDTHS[i];
    const byHash = hashed(module, activation, dModel, dFf);
    const bySigmoid: Exercise = { ...byHash, config: { ...byHash.config, router: 'base_eval' }, inputs: {} };
    const byThreshold: Exercise = { ...bySigmoid, config: { ...byHash.config, router: 'threshold', threshold: 0.5 } };
    return [...stagesOf(byHash), ...stagesOf(bySigmoid), ...stagesOf(byThreshold)];
  });
  return outputs.map(data => new Uint32Array(Float32Array.from(data).buffer));
}

/** Runs a module's kernels on a layer that is large enough to be timed and to make them hot. Each call is one round. */
export function workload(module: KernelModule): () => void {
  const layers = ACTIVATIONS.map(activation => {
    const config: Config = { router: 'dense', numExperts: 2, capacityFactor: null, activation };
    return { ...openExercise(module, config, 64, 96, 96), inputs: {} };
  });
  return () => {
    for (const { layer, x, config, inputs } of layers) runLayer(layer, x, inputs, config);
  };
}

function stagesOf({ layer, x, config, inputs }: Exercise): Floats[] {
  const routing = route(layer, x);
  begin(layer);
  const plan: DispatchPlan = dispatch(layer, routing, inputs, config);
  const { hidden, out } = runExperts(layer, x, plan, config);
  const y = combine(layer, out, plan);
  const { y: fused } = runLayer(layer, x, inputs, config);
  return [routing.logits.data, routing.probs.data, plan.combineWeight, hidden.data, out.data, y.data, fused.data];
}

function hashed(module: KernelModule, activation: ActivationName, dModel: number, dFf: number): Exercise {
  const rows = Array.from({ length: NUM_EXPERTS }, (_, e) => Array<number>(e).fill(e)).flat();
  const config: Config = { router: 'hash', numExperts: NUM_EXPERTS, capacityFactor: null, activation };
  const inputs = { tokenIds: Int32Array.from(rows), hashTable: Int32Array.from({ length: NUM_EXPERTS }, (_, e) => e) };
  return { ...openExercise(module, config, rows.length, dModel, dFf), inputs };
}

/** With a router's weights whatever the router, so that one layer serves several. */
function openExercise(module: KernelModule, config: Config, numTokens: number, dModel: number, dFf: number) {
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
  const packed = packWeights(weights, module.set, numBytes => new Memory(numBytes, module.isShared));
  return { layer: { ...workspaceOver(module, packed.memory), packed }, x: matrix(numTokens, dModel), config };
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
