/**
 * Random layers, small and hostile on purpose: ties, masses that fall exactly on τ, saturated logits, probabilities of 0,
 * experts without tokens, padding, sizes of every tail. A failing case prints its recipe, and that is what shrinks.
 */
import fc from 'fast-check';
import {
  integer,
  type Layer,
  type LogitStyle,
  layerOf,
  matrixOf,
  type Recipe,
  type Sizes,
  uniform,
} from '../cases/index.js';
import type { ActivationName, Matrix, RouterName } from '../types.js';

export type { Layer, LogitStyle, Recipe, Sizes } from '../cases/index.js';

export const routerNames = ['threshold', 'dense', 'topk', 'switch', 'hash', 'base_eval', 'base_train'] as const;
export const softmaxRouters = ['threshold', 'dense', 'topk', 'switch'] as const;
export const activationNames = ['relu', 'gelu', 'gelu_tanh', 'silu', 'swiglu', 'geglu'] as const;

/** Which recipes are wanted: a part of each choice. Absent is all of it. */
export interface Wanted {
  readonly routers?: readonly RouterName[];
  readonly activations?: readonly ActivationName[];
  readonly logits?: readonly LogitStyle[];
  readonly masks?: readonly Recipe['mask'][];
  readonly skipExpert?: boolean;
  readonly thresholds?: fc.Arbitrary<number>;
  readonly capacities?: fc.Arbitrary<Recipe['capacity']>;
  /** Sizes of one's own, in place of `maxSize` and `large`. */
  readonly sizes?: fc.Arbitrary<Sizes>;
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
      sizes: wanted.sizes ?? sizes(wanted.maxSize ?? 19, wanted.large ?? true),
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

/** Every tail of vectors of 4, whole vectors, no token, one token, one expert; and now and then one size that is large. */
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

/** More experts than a byte counts, and few of everything else. */
export const hundredsOfExperts: fc.Arbitrary<Sizes> = fc.record({
  numTokens: fc.integer({ min: 1, max: 2 }),
  numExperts: fc.integer({ min: 260, max: 300 }),
  dModel: fc.integer({ min: 1, max: 3 }),
  dFf: fc.integer({ min: 1, max: 2 }),
});

/** Below, at and above their range; many sixteenths, which meet the masses of equal probabilities exactly. */
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
