/** Recipes by number: case i of seed S is the same on every machine, so that many machines can share a search. */
import type { ActivationName, RouterName } from '../types.js';
import type { LogitStyle, Recipe, Sizes } from './recipes.js';
import { integer, uniform } from './values.js';

/** Which recipes are wanted: a part of each choice. Absent is all of it. */
export interface WantedRecipes {
  readonly routers?: readonly RouterName[];
  readonly activations?: readonly ActivationName[];
  readonly logits?: readonly LogitStyle[];
  /** What no case has. */
  readonly without?: readonly Feature[];
  /** Default `f32`: numbers that a float32 file holds exactly. */
  readonly storage?: Recipe['storage'];
}

/** What a layer may have or not: biases of the experts, a skip expert, a mask, noise (topk), a capacity. */
export const features = ['bias', 'skip', 'mask', 'noise', 'capacity'] as const;

export type Feature = (typeof features)[number];

type Choices<T> = readonly (readonly [weight: number, value: T])[];

const ROUTERS: Choices<RouterName> = [
  [6, 'threshold'],
  [2, 'topk'],
  [1, 'dense'],
  [1, 'switch'],
  [1, 'hash'],
  [1, 'base_eval'],
  [1, 'base_train'],
];

const ACTIVATIONS = equally(['relu', 'gelu', 'gelu_tanh', 'silu', 'swiglu', 'geglu'] as const);

const LOGITS: Choices<LogitStyle> = [
  [5, 'generic'],
  [2, 'heavy'],
  [1, 'steep'],
  [2, 'tied'],
  [3, 'level'],
  [1, 'saturated'],
  [1, 'negative'],
];

const MASKS: Choices<Recipe['mask']> = [
  [6, 'absent'],
  [1, 'all real'],
  [3, 'some padded'],
  [1, 'all padded'],
];

/**
 * The recipe with this number.
 *
 * Sizes   mostly 1 to 19, every tail of vectors of 4 and several whole ones; T = 0, T = 1 and E = 1; one case in five has
 *         one size up to 600, past a warp, a byte and a block: faults start at the 33rd token, the 128th or 256th expert
 * Ties    where all logits are equal, E is often a power of two and τ a multiple of 1/E: p and its sums are exact in every
 *         format, and τ meets them, or all but does
 */
export function drawRecipe(seed: number, index: number, wanted: WantedRecipes = {}): Recipe {
  const draws = drawsOf(seed, index);
  const router = draws.choose(among(ROUTERS, wanted.routers));
  const logits = draws.choose(among(LOGITS, wanted.logits));
  const exact = logits === 'level' && draws.oneIn(2) ? 2 ** draws.integer(0, 5) : undefined;
  const drawn = draws.oneIn(5) ? oneLarge(draws) : usual(draws);
  const sizes = exact === undefined ? drawn : { ...drawn, numExperts: exact };
  const recipe: Recipe = {
    router,
    activation: draws.choose(among(ACTIVATIONS, wanted.activations)),
    sizes,
    logits,
    expertValues: draws.oneIn(3) ? 'integers' : 'generic',
    biases: { up: draws.oneIn(2), gate: draws.oneIn(2), down: draws.oneIn(2) },
    storage: wanted.storage ?? 'f32',
    threshold: exact === undefined ? threshold(draws) : besideMass(draws, exact),
    topK: draws.oneIn(6) ? 600 : draws.integer(1, 6),
    noise: draws.oneIn(2),
    capacity: capacity(draws, sizes),
    skipExpert: exact === undefined && draws.oneIn(4),
    auxLossCoef: draws.choose(equally([0, 0.01, -1.5])),
    mask: draws.choose(MASKS),
    seed: draws.integer(0, 2 ** 31 - 1),
  };
  return Object.assign(recipe, ...(wanted.without ?? []).map(feature => WITHOUT[feature]));
}

const WITHOUT: Readonly<Record<Feature, Partial<Recipe>>> = {
  bias: { biases: { up: false, gate: false, down: false } },
  skip: { skipExpert: false },
  mask: { mask: 'absent' },
  noise: { noise: false },
  capacity: { capacity: { capacityFactor: null } },
};

function usual(draws: Draws): Sizes {
  const some = () => draws.integer(1, 19);
  return {
    numTokens: draws.choose<() => number>([
      [1, () => 0],
      [1, () => 1],
      [10, some],
    ])(),
    numExperts: draws.choose<() => number>([
      [1, () => 1],
      [3, () => 2 ** draws.integer(1, 4)],
      [6, some],
    ])(),
    dModel: some(),
    dFf: some(),
  };
}

function oneLarge(draws: Draws): Sizes {
  const small = () => draws.integer(1, 6);
  const which = draws.choose<keyof Sizes>([
    [4, 'numTokens'],
    [4, 'numExperts'],
    [3, 'dModel'],
    [3, 'dFf'],
  ]);
  const size = draws.choose<() => number>([
    [3, () => draws.integer(20, 70)],
    [2, () => draws.integer(120, 140)],
    [3, () => draws.integer(250, 300)],
    [2, () => draws.integer(301, 600)],
  ]);
  const sizes = { numTokens: small(), numExperts: small(), dModel: small(), dFf: small() };
  if (which === 'numExperts') sizes.numTokens = draws.integer(4, 12); // or few of the experts would be chosen
  return { ...sizes, [which]: size() };
}

/** Below, at and above the range of masses; sixteenths, which meet equal probabilities; anything between. */
function threshold(draws: Draws): number {
  return draws.choose<() => number>([
    [2, () => draws.choose(equally([0, -1, -0.5]))],
    [4, () => draws.choose(equally([1 / 4, 1 / 2, 3 / 4, 0.9, 1]))],
    [3, () => draws.integer(1, 16) / 16],
    [6, () => draws.integer(1, 2 ** 20 - 1) / 2 ** 20],
    [2, () => draws.choose(equally([1 + 2 ** -52, 1.5, 100]))],
  ])();
}

/** A mass of equal probabilities, or a little beside it: what f16, bf16 and an epsilon do not tell from it. */
function besideMass(draws: Draws, numExperts: number): number {
  const mass = draws.integer(0, numExperts) / numExperts;
  const beside = draws.choose<number>([
    [6, 0],
    [1, 1],
    [1, -1],
  ]);
  return mass * (1 + beside * 2 ** -draws.integer(10, 18));
}

/** No drop; tight; γ·T/E on an integer, or a last bit or a little beside it; more than T; nothing at all; the default C_min. */
function capacity(draws: Draws, { numTokens, numExperts }: Sizes): Recipe['capacity'] {
  const ofIntegers = (draws.integer(1, 4) * numExperts) / Math.max(1, numTokens);
  const besideIt = draws.choose(equally([1, 1 - 2 ** -52, 1 + 2 ** -52, 1 - 2 ** -12, 1 + 2 ** -12]));
  return draws.choose<() => Recipe['capacity']>([
    [4, () => ({ capacityFactor: null })],
    [5, () => ({ capacityFactor: draws.integer(1, 8) / 8, minCapacity: draws.integer(0, 1) })],
    [4, () => ({ capacityFactor: draws.integer(8, 32) / 8, minCapacity: draws.choose(equally([0, 1, 3])) })],
    [2, () => ({ capacityFactor: ofIntegers * besideIt, minCapacity: draws.integer(0, 1) })],
    [1, () => ({ capacityFactor: draws.integer(8, 1024), minCapacity: draws.choose(equally([0, 1000])) })],
    [1, () => ({ capacityFactor: 0, minCapacity: 0 })],
    [1, () => ({ capacityFactor: draws.integer(0, 16) / 8 })],
  ])();
}

/** Numbers from a seed and an index, one after the other. */
interface Draws {
  integer(low: number, high: number): number;
  oneIn(n: number): boolean;
  choose<T>(choices: Choices<T>): T;
}

function drawsOf(seed: number, index: number): Draws {
  let count = 0;
  const next = () => uniform(seed, 0, index, count++); // the 0 stirs the seed first, or seeds would share their cases
  return {
    integer: (low, high) => integer(next(), low, high),
    oneIn: n => next() * n < 1,
    choose(choices) {
      let left = next() * choices.reduce((total, [weight]) => total + weight, 0);
      for (const [weight, value] of choices) {
        left -= weight;
        if (left < 0) return value;
      }
      return choices[choices.length - 1][1];
    },
  };
}

function equally<T>(values: readonly T[]): Choices<T> {
  return values.map(value => [1, value]);
}

/** The choices that are wanted. @throws RangeError if that leaves none */
function among<T extends string>(choices: Choices<T>, wanted: readonly T[] | undefined): Choices<T> {
  const left = wanted === undefined ? choices : choices.filter(([, value]) => wanted.includes(value));
  if (left.length > 0) return left;
  throw new RangeError(`"wanted" expected some of ${choices.map(([, value]) => value).join(', ')}, got ${wanted}`);
}
