/** A recipe says what a random layer is like, in words and a seed; the layer follows from it, number by number. */
import type { ActivationName, Config, Matrix, RouterName, RoutingInputs, Weights } from '../types.js';
import { generic, integer, matrixOf, shuffled, uniform } from './values.js';

/** Everything that one call of a layer needs, and a cotangent for y. */
export interface Layer {
  readonly config: Config;
  readonly weights: Weights;
  readonly x: Matrix;
  readonly inputs: RoutingInputs;
  readonly gradY: Matrix;
}

/**
 * What the logits look like. `tied`: integers, experts and tokens repeated. `level`: all equal, and exact in float32. `saturated`: multiples
 * of 1000, so that probabilities are 0 or 1/n. `negative`: negative integers. `steep`: tails that underflow. `heavy`: a few
 * elements of x hundreds of times the others, as trained models have them.
 */
export type LogitStyle = 'generic' | 'heavy' | 'steep' | 'tied' | 'level' | 'saturated' | 'negative';

export interface Recipe {
  readonly router: RouterName;
  readonly activation: ActivationName;
  /** BASE training takes T modulo 4 as the places of an expert, and at most 40 experts: it is cubic in them. */
  readonly sizes: Sizes;
  readonly logits: LogitStyle;
  readonly expertValues: 'generic' | 'integers';
  readonly biases: { readonly up: boolean; readonly gate: boolean; readonly down: boolean };
  readonly storage: 'f64' | 'f32';
  readonly threshold: number;
  /** Cut to the number of columns. */
  readonly topK: number;
  readonly noise: boolean;
  readonly capacity: Pick<Config, 'capacityFactor' | 'minCapacity'>;
  readonly skipExpert: boolean;
  readonly auxLossCoef: number;
  readonly mask: 'absent' | 'all real' | 'some padded' | 'all padded';
  readonly seed: number;
}

export interface Sizes {
  readonly numTokens: number;
  readonly numExperts: number;
  readonly dModel: number;
  readonly dFf: number;
}

/** The tensors, for the place that a number has in the seed. */
const [X, ROUTER, UP, UP_BIAS, GATE, GATE_BIAS, DOWN, DOWN_BIAS, NOISE, IDS, TABLE, MASK, GRAD_Y] = Array(13).keys();

/** A gated threshold layer of these sizes with all biases, or as `more` says. */
export function layerOfSizes(
  numTokens: number,
  numExperts: number,
  dModel: number,
  dFf: number,
  more: Partial<Recipe> = {},
): Layer {
  return layerOf({
    router: 'threshold',
    activation: 'swiglu',
    sizes: { numTokens, numExperts, dModel, dFf },
    logits: 'generic',
    expertValues: 'generic',
    biases: { up: true, gate: true, down: true },
    storage: 'f64',
    threshold: 0.75,
    topK: 2,
    noise: true,
    capacity: { capacityFactor: null },
    skipExpert: false,
    auxLossCoef: 0,
    mask: 'absent',
    seed: 7,
    ...more,
  });
}

/** The layer of a recipe. */
export function layerOf(given: Recipe): Layer {
  const fewer = { ...given.sizes, numExperts: Math.min(given.sizes.numExperts, 40) };
  const recipe = given.router === 'base_train' ? { ...given, sizes: fewer } : given;
  const { router, activation, threshold, capacity, skipExpert, auxLossCoef, seed } = recipe;
  const { numExperts, dModel } = recipe.sizes;
  const numColumns = numExperts + (skipExpert ? 1 : 0);
  const tokenMask = maskOf(recipe, numColumns);
  const numTokens = tokenMask.length;
  const config: Config = {
    numExperts,
    router,
    ...(router === 'threshold' && { threshold }),
    ...(router === 'topk' && { topK: Math.min(recipe.topK, numColumns) }),
    ...capacity,
    ...(skipExpert && { skipExpert }),
    activation,
    ...(auxLossCoef !== 0 && { auxLossCoef }),
  };
  const stored = (a: Matrix) => (recipe.storage === 'f32' ? { ...a, data: Float32Array.from(a.data) } : a);
  const inputs: RoutingInputs = {
    ...(recipe.mask !== 'absent' && { tokenMask }),
    ...(router === 'hash' && hashInputs(numTokens, numColumns, seed)),
    ...(router === 'topk' && recipe.noise && { noise: stored(noiseOf(recipe, numTokens, numColumns)) }),
  };
  return {
    config,
    weights: weightsOf(recipe, router === 'hash' ? 0 : numColumns, stored),
    x: stored(xOf(recipe, numTokens)),
    inputs,
    gradY: stored(matrixOf(numTokens, dModel, (t, c) => generic(uniform(seed, GRAD_Y, t, c)))),
  };
}

/** One flag for each token. BASE training needs as many real tokens as fill its experts; padding is put between them. */
function maskOf({ router, sizes: { numTokens }, mask, seed }: Recipe, numColumns: number): Uint8Array {
  const share = { absent: 1, 'all real': 1, 'some padded': 0.6, 'all padded': 0 }[mask];
  if (router !== 'base_train') {
    return Uint8Array.from({ length: numTokens }, (_, t) => (uniform(seed, MASK, t) < share ? 1 : 0));
  }
  const numReal = share === 0 ? 0 : numColumns * (numTokens % 4);
  const numPadded = share === 1 ? 0 : numTokens % 6;
  return Uint8Array.from(shuffled(numReal + numPadded, seed), place => (place < numReal ? 1 : 0));
}

/** x and the router's rows make the logits together. */
function xOf({ sizes: { dModel }, logits, seed }: Recipe, numTokens: number): Matrix {
  return matrixOf(numTokens, dModel, (t, c) => {
    const u = uniform(seed, X, t, c);
    switch (logits) {
      case 'generic':
      case 'steep':
        return generic(u);
      case 'level':
        return integer(u, -64, 64) / 64;
      case 'heavy':
        return generic(u) * (uniform(seed, X, t, c, 1) < 0.1 ? 300 : 1);
      case 'tied':
        return integer(uniform(seed, X, repeated(seed, X, t), c), -1, 1);
      case 'saturated':
        return integer(u, -1, 1);
      case 'negative':
        return integer(u, 1, 2);
    }
  });
}

function routerOf({ sizes: { dModel }, logits, seed }: Recipe, numColumns: number): Matrix {
  return matrixOf(numColumns, dModel, (e, c) => {
    const u = uniform(seed, ROUTER, e, c);
    const ofRepeated = uniform(seed, ROUTER, repeated(seed, ROUTER, e), c);
    switch (logits) {
      case 'generic':
      case 'heavy':
        return (2 / Math.sqrt(dModel)) * generic(u);
      case 'steep':
        return (200 / Math.sqrt(dModel)) * generic(u);
      case 'tied':
        return integer(ofRepeated, -1, 1);
      case 'level':
        return integer(uniform(seed, ROUTER, 0, c), -4, 4) / 4;
      case 'saturated':
        return 1000 * integer(ofRepeated, -1, 1);
      case 'negative':
        return -integer(u, 1, 3);
    }
  });
}

/** One of the first three rows: what was `row` repeats it. */
function repeated(seed: number, tensor: number, row: number): number {
  return integer(uniform(seed, tensor, row, 0, 1), 0, 2);
}

function weightsOf(recipe: Recipe, numRouterRows: number, stored: (a: Matrix) => Matrix): Weights {
  const { activation, expertValues, biases, seed } = recipe;
  const { numExperts, dModel, dFf } = recipe.sizes;
  const value = (fanIn: number, tensor: number, e: number, i: number, j = 0) => {
    const u = uniform(seed, tensor, e, i, j);
    return expertValues === 'integers' ? integer(u, -2, 2) : generic(u) / Math.sqrt(fanIn);
  };
  const perExpert = (tensor: number, rows: number, cols: number) =>
    Array.from({ length: numExperts }, (_, e) => stored(matrixOf(rows, cols, (i, j) => value(cols, tensor, e, i, j))));
  const bias = (tensor: number, cols: number) => stored(matrixOf(numExperts, cols, (e, j) => value(1, tensor, e, j)));
  const gated = activation === 'swiglu' || activation === 'geglu';
  return {
    router: stored(routerOf(recipe, numRouterRows)),
    up: perExpert(UP, dFf, dModel),
    ...(biases.up && { upBias: bias(UP_BIAS, dFf) }),
    ...(gated && { gate: perExpert(GATE, dFf, dModel) }),
    ...(gated && biases.gate && { gateBias: bias(GATE_BIAS, dFf) }),
    down: perExpert(DOWN, dModel, dFf),
    ...(biases.down && { downBias: bias(DOWN_BIAS, dModel) }),
  };
}

/** Integers, which tie, where the logits are integers too. */
function noiseOf({ logits, seed }: Recipe, numTokens: number, numColumns: number): Matrix {
  const exact = logits === 'tied' || logits === 'saturated' || logits === 'negative';
  return matrixOf(numTokens, numColumns, (t, e) => {
    const u = uniform(seed, NOISE, t, e);
    return exact ? integer(u, -2, 2) : 3 * generic(u);
  });
}

/** A table of up to seven ids, so that some experts may have none. */
function hashInputs(numTokens: number, numColumns: number, seed: number): RoutingInputs {
  const numIds = integer(uniform(seed, TABLE, 0), 1, 7);
  return {
    hashTable: Int32Array.from({ length: numIds }, (_, id) => integer(uniform(seed, TABLE, 1, id), 0, numColumns - 1)),
    tokenIds: Int32Array.from({ length: numTokens }, (_, t) => integer(uniform(seed, IDS, t), 0, numIds - 1)),
  };
}
