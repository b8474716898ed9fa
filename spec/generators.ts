/**
 * Random layers, small and hostile on purpose: ties, masses that fall exactly on τ, saturated logits, probabilities of 0,
 * experts without tokens, padding, sizes of every tail. A layer follows from its recipe, which is what a failing case
 * prints and what shrinks.
 */
import fc from 'fast-check';
import type { ActivationName, Config, Matrix, RouterName, RoutingInputs, Weights } from 'xmoe';
import { generic, integer, matrixOf, shuffled, uniform } from './values.js';

/** Everything that one call of a layer needs, and a cotangent for y. */
export interface Layer {
  readonly config: Config;
  readonly weights: Weights;
  readonly x: Matrix;
  readonly inputs: RoutingInputs;
  readonly gradY: Matrix;
}

export const routerNames = ['threshold', 'dense', 'topk', 'switch', 'hash', 'base_eval', 'base_train'] as const;
export const softmaxRouters = ['threshold', 'dense', 'topk', 'switch'] as const;
export const activationNames = ['relu', 'gelu', 'gelu_tanh', 'silu', 'swiglu', 'geglu'] as const;

/**
 * What the logits look like. `tied`: integers, experts and tokens repeated. `level`: all equal. `saturated`: multiples
 * of 1000, so that probabilities are 0 or 1/n. `negative`: negative integers. `steep`: tails that underflow.
 */
export type LogitStyle = 'generic' | 'steep' | 'tied' | 'level' | 'saturated' | 'negative';

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

interface Sizes {
  readonly numTokens: number;
  readonly numExperts: number;
  readonly dModel: number;
  readonly dFf: number;
}

/** Which recipes are wanted: a part of each choice. Absent is all of it. */
export interface Wanted {
  readonly routers?: readonly RouterName[];
  readonly activations?: readonly ActivationName[];
  readonly logits?: readonly LogitStyle[];
  readonly masks?: readonly Recipe['mask'][];
  readonly skipExpert?: boolean;
  readonly thresholds?: fc.Arbitrary<number>;
  readonly capacities?: fc.Arbitrary<Recipe['capacity']>;
  /** The largest of the usual sizes; 19, the default, has every tail of vectors of 4 and several whole ones. */
  readonly maxSize?: number;
  /** Whether one case in twenty has one size of up to 600. Default true. */
  readonly large?: boolean;
}

/** A layer and all that one call of it needs. */
export function layers(wanted: Wanted = {}): fc.Arbitrary<Layer> {
  return recipes(wanted).map(recipe => ({ ...layerOf(recipe), [fc.toStringMethod]: () => JSON.stringify(recipe) }));
}

/** The choices are weighted here, in plain sight, rather than by fast-check's own bias. */
export function recipes(wanted: Wanted = {}): fc.Arbitrary<Recipe> {
  return fc.noBias(
    fc.record({
      router: fc.constantFrom(...(wanted.routers ?? routerNames)),
      activation: fc.constantFrom(...(wanted.activations ?? activationNames)),
      sizes: sizes(wanted.maxSize ?? 19, wanted.large ?? true),
      logits: fc.constantFrom(...(wanted.logits ?? logitStyles)),
      expertValues: fc.constantFrom('generic', 'integers'),
      biases: fc.record({ up: fc.boolean(), gate: fc.boolean(), down: fc.boolean() }),
      storage: weighted([4, fc.constant('f64')], [1, fc.constant('f32')]),
      threshold: wanted.thresholds ?? thresholds,
      topK: weighted([5, fc.integer({ min: 1, max: 6 })], [1, fc.constant(600)]),
      noise: fc.boolean(),
      capacity: wanted.capacities ?? capacities,
      skipExpert:
        wanted.skipExpert === undefined
          ? weighted([3, fc.constant(false)], [1, fc.constant(true)])
          : fc.constant(wanted.skipExpert),
      auxLossCoef: fc.constantFrom(0, 0.01, -1.5),
      mask: wanted.masks ? fc.constantFrom(...wanted.masks) : masks,
      seed: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
    }),
  );
}

/** `generic` counts twice. */
const logitStyles: readonly LogitStyle[] = ['generic', 'generic', 'steep', 'tied', 'level', 'saturated', 'negative'];

const masks = weighted<Recipe['mask']>(
  [5, fc.constant('absent')],
  [1, fc.constant('all real')],
  [2, fc.constant('some padded')],
  [1, fc.constant('all padded')],
);

function sizes(maxSize: number, large: boolean): fc.Arbitrary<Sizes> {
  const some = fc.integer({ min: 1, max: maxSize });
  const powers = [2, 4, 8, 16].filter(n => n <= maxSize);
  const usual: fc.Arbitrary<Sizes> = fc.record({
    numTokens: weighted([1, fc.constant(0)], [1, fc.constant(1)], [8, some]),
    numExperts: weighted([3, fc.constant(1)], [5, fc.constantFrom(...powers)], [9, some]),
    dModel: some,
    dFf: some,
  });
  const oneLarge: fc.Arbitrary<Sizes> = fc
    .record({
      others: fc.integer({ min: 1, max: Math.min(maxSize, 8) }),
      which: fc.constantFrom('numTokens', 'numExperts', 'dModel', 'dFf'),
      size: fc.integer({ min: maxSize + 1, max: 600 }),
    })
    .map(({ others, which, size }) => ({
      ...{ numTokens: others, numExperts: others, dModel: others, dFf: others },
      [which]: size,
    }));
  return large ? weighted([19, usual], [1, oneLarge]) : usual;
}

/** Sixteenths meet the masses of equal probabilities exactly. */
export const thresholds: fc.Arbitrary<number> = weighted(
  [2, fc.constantFrom(0, -1, -0.5)],
  [5, fc.constantFrom(1 / 4, 1 / 2, 3 / 4, 1)],
  [3, fc.integer({ min: 1, max: 16 }).map(n => n / 16)],
  [5, fc.integer({ min: 1, max: 2 ** 20 - 1 }).map(n => n / 2 ** 20)],
  [2, fc.constantFrom(1 + 2 ** -52, 1.5, 100)],
);

/** γ in eighths from 0 to 1 drops much; from 1 to 4, some; without one, nothing. */
export const capacities = weighted<Recipe['capacity']>(
  [2, fc.constant({ capacityFactor: null })],
  [4, fc.record({ capacityFactor: eighths(0, 1), minCapacity: fc.constantFrom(0, 1) })],
  [2, fc.record({ capacityFactor: eighths(1, 4), minCapacity: fc.constantFrom(0, 1, 3) })],
  [1, fc.record({ capacityFactor: eighths(0, 2) })],
);

export const withCapacity = capacities.filter(({ capacityFactor }) => capacityFactor !== null);

export const noDrop: fc.Arbitrary<Recipe['capacity']> = fc.constant({ capacityFactor: null });

/** Probabilities that are sixteenths: their sums are exact, they tie, many are 0. A token drops sixteen balls into E bins. */
export const sixteenths: fc.Arbitrary<Matrix> = fc.noBias(
  fc
    .record({
      numTokens: fc.integer({ min: 0, max: 9 }),
      numExperts: fc.integer({ min: 1, max: 11 }),
      seed: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
    })
    .map(({ numTokens, numExperts, seed }) => {
      const probs = matrixOf(numTokens, numExperts, () => 0);
      for (let ball = 0; ball < 16 * numTokens; ball++) {
        const t = ball % numTokens;
        probs.data[t * numExperts + integer(uniform(seed, ball), 0, numExperts - 1)] += 1 / 16;
      }
      return probs;
    }),
);

function eighths(min: number, max: number): fc.Arbitrary<number> {
  return fc.integer({ min: 8 * min, max: 8 * max }).map(n => n / 8);
}

function weighted<T>(...choices: [number, fc.Arbitrary<T>][]): fc.Arbitrary<T> {
  return fc.oneof({ withCrossShrink: true }, ...choices.map(([weight, arbitrary]) => ({ weight, arbitrary })));
}

/** The tensors, for the place that a number has in the seed. */
const [X, ROUTER, UP, UP_BIAS, GATE, GATE_BIAS, DOWN, DOWN_BIAS, NOISE, IDS, TABLE, MASK, GRAD_Y] = Array(13).keys();

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
  const inputs: RoutingInputs = {
    ...(recipe.mask !== 'absent' && { tokenMask }),
    ...(router === 'hash' && hashInputs(numTokens, numColumns, seed)),
    ...(router === 'topk' && recipe.noise && { noise: noiseOf(recipe, numTokens, numColumns) }),
  };
  const stored = (a: Matrix) => (recipe.storage === 'f32' ? { ...a, data: Float32Array.from(a.data) } : a);
  return {
    config,
    weights: weightsOf(recipe, router === 'hash' ? 0 : numColumns, stored),
    x: stored(xOf(recipe, numTokens)),
    inputs,
    gradY: matrixOf(numTokens, dModel, (t, c) => generic(uniform(seed, GRAD_Y, t, c))),
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
      case 'level':
        return generic(u);
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
        return (2 / Math.sqrt(dModel)) * generic(u);
      case 'steep':
        return (200 / Math.sqrt(dModel)) * generic(u);
      case 'tied':
        return integer(ofRepeated, -1, 1);
      case 'level':
        return generic(uniform(seed, ROUTER, 0, c));
      case 'saturated':
        return 1000 * integer(ofRepeated, -1, 1);
      case 'negative':
        return -integer(u, 1, 3);
    }
  });
}

/** One of the first three rows: what was `row` repeats it. */
function repeated(seed: number, tensor: number, row: number): number {
  return integer(uniform(seed, tensor, row), 0, 2);
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

/** Half of the recipes draw integers, which tie, the others numbers that do not. */
function noiseOf({ logits, seed }: Recipe, numTokens: number, numColumns: number): Matrix {
  const exact = logits !== 'generic' && logits !== 'steep';
  return matrixOf(numTokens, numColumns, (t, e) => {
    const u = uniform(seed, NOISE, t, e);
    return exact ? integer(u, -2, 2) : 3 * generic(u);
  });
}

/** A table of up to seven ids, so that some experts may have none. */
function hashInputs(numTokens: number, numColumns: number, seed: number): RoutingInputs {
  const numIds = integer(uniform(seed, TABLE), 1, 7);
  return {
    hashTable: Int32Array.from({ length: numIds }, (_, id) => integer(uniform(seed, TABLE, id), 0, numColumns - 1)),
    tokenIds: Int32Array.from({ length: numTokens }, (_, t) => integer(uniform(seed, IDS, t), 0, numIds - 1)),
  };
}
