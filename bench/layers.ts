/** What every contender is given: a layer's weights in float32, and for each call its tokens, decisions and answer. */
import {
  type Config,
  type DispatchPlan,
  type Floats,
  type Matrix,
  type Routing,
  reference,
  route,
  runLayer,
  selectThreshold,
  type Weights,
} from 'xmoe';
import { outputTensors } from 'xmoe/layer-case';
import { arithmeticNamed, errorBounds } from 'xmoe/oracle';
import type { Shape } from './shapes.js';

/** Ours; and the fixed k that other libraries know, with k the average of ours. */
export type LayerRouter = 'threshold' | 'topk';

export interface Layer {
  readonly shape: Shape;
  readonly config: Config;
  /** Views of `up` and `down`, and the router. */
  readonly weights: Weights;
  /** W1 of all experts in one piece: [E, m, d]. */
  readonly up: Float32Array;
  /** W2: [E, d, m]. */
  readonly down: Float32Array;
  /** Calls to make in turn, round and round. More than one where the shape is a decode: each needs other experts. */
  readonly steps: readonly Step[];
}

export interface Step {
  /** [T, d], float32. */
  readonly x: Matrix;
  readonly routing: Routing;
  readonly plan: DispatchPlan;
  /** y of the reference [T, d], and how far from it float32 may be. */
  readonly expected: Floats;
  readonly bound: Floats;
}

/** The layer of a shape; the same weights and tokens whatever the router. */
export function layerOf(shape: Shape, layerRouter: LayerRouter): Layer {
  const { dModel, numExperts, dFf, numTokens, expertsPerToken } = shape;
  const uniform = uniformNumbers();
  const up = uniform(numExperts * dFf * dModel, 1 / Math.sqrt(dModel));
  const down = uniform(numExperts * dModel * dFf, 1 / Math.sqrt(dFf));
  const weights: Weights = {
    router: routerOf(numExperts, dModel, uniform),
    up: experts(up, numExperts, dFf, dModel),
    down: experts(down, numExperts, dModel, dFf),
  };
  const x =
    numTokens > 1
      ? { rows: numTokens, cols: dModel, data: uniform(numTokens * dModel, 1) }
      : decodeTokens(shape, weights.router, uniform);

  const config: Config = {
    numExperts,
    router: layerRouter,
    threshold: thresholdFor(expertsPerToken, route(x, weights).probs),
    topK: expertsPerToken,
    capacityFactor: null,
    activation: 'relu',
  };
  return { shape, config, weights, up, down, steps: stepsOf(x, weights, config, numTokens) };
}

/** Wr [E, d]: logits of tokens of deviation 1 have a deviation of 2. */
export function routerOf(numExperts: number, dModel: number, uniform: Uniform): Matrix {
  return { rows: numExperts, cols: dModel, data: uniform(numExperts * dModel, 2 / Math.sqrt(dModel)) };
}

/** Tokens of a decode: token t wants experts t·k … t·k + k − 1, through all E, so that no cache has their weights. */
function decodeTokens({ dModel, numExperts, expertsPerToken }: Shape, router: Matrix, uniform: Uniform): Matrix {
  const rows = Math.floor(numExperts / expertsPerToken);
  const data = uniform(rows * dModel, 1 / 4);
  for (let e = 0; e < rows * expertsPerToken; e++) {
    const t = Math.floor(e / expertsPerToken);
    // A row of Wr has a squared length of about 4: this adds about 6 to the logit of expert e.
    for (let i = 0; i < dModel; i++) data[t * dModel + i] += 1.5 * router.data[e * dModel + i];
  }
  return { rows, cols: dModel, data };
}

/** τ for this many experts per token on average, to a quarter of a percent: no nearer, where some mass would equal it. */
function thresholdFor(expertsPerToken: number, probs: Matrix): number {
  const wanted = expertsPerToken * probs.rows;
  let [low, high] = [0, 1];
  while (high - low > 1e-6) {
    const threshold = (low + high) / 2;
    const count = selectThreshold(probs, threshold).expertIndex.length;
    if (Math.abs(count - wanted) <= wanted / 400) return threshold;
    if (count < wanted) low = threshold;
    else high = threshold;
  }
  throw new RangeError(`no threshold selects ${expertsPerToken} experts per token`);
}

/** Without a capacity no token knows of another, so one pass of the reference answers all steps. */
function stepsOf(x: Matrix, weights: Weights, config: Config, numTokens: number): Step[] {
  const trace = runLayer(reference, x, weights, config);
  const kept = outputTensors(trace).get('kept')!.data as Uint8Array;
  const bound = errorBounds({ x, weights, config, inputs: {} }, kept, arithmeticNamed('f32')).get('y')!.error;
  return Array.from({ length: x.rows / numTokens }, (_, step) => {
    const part = (data: Floats) => {
      const size = (data.length / x.rows) * numTokens;
      return data.subarray(step * size, (step + 1) * size);
    };
    const rowsOf = (a: Matrix): Matrix => ({ rows: numTokens, cols: a.cols, data: part(a.data) });
    const routing = { logits: rowsOf(trace.routing.logits), probs: rowsOf(trace.routing.probs) };
    const plan = reference.dispatch(routing, {}, config);
    return { x: rowsOf(x), routing, plan, expected: part(trace.y.data), bound: part(bound) };
  });
}

function experts(data: Float32Array, numExperts: number, rows: number, cols: number): Matrix[] {
  const size = rows * cols;
  return Array.from({ length: numExperts }, (_, e) => ({ rows, cols, data: data.subarray(e * size, (e + 1) * size) }));
}

export type Uniform = (length: number, deviation: number) => Float32Array<ArrayBuffer>;

/** Uniform numbers of mean 0, the same in each run: xorshift32 (Marsaglia, Xorshift RNGs, 2003). */
export function uniformNumbers(): Uniform {
  let state = 2463534242;
  return (length, deviation) => {
    const scale = (deviation * Math.sqrt(12)) / 2 ** 32;
    const values = new Float32Array(length);
    for (let i = 0; i < length; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      values[i] = state * scale;
    }
    return values;
  };
}
