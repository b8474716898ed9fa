/** Random linear layers for the kernels of the products: sizes of every tail and several tiles, and numbers to fill them. */
import fc from 'fast-check';

/** One linear layer over some rows, and how its arrays lie. */
export interface Call {
  readonly rows: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly seed: number;
  readonly spread: number;
  readonly gap: number;
  readonly last: number;
}

// Every tail and a few full tiles; no rows are legal, no inputs are not. Half of the outputs fill four panels at once.
export const calls: fc.Arbitrary<Call> = fc.record({
  rows: fc.oneof(
    { weight: 2, arbitrary: fc.constant(0) },
    { weight: 8, arbitrary: fc.integer({ min: 1, max: 2 }) },
    { weight: 10, arbitrary: fc.integer({ min: 3, max: 6 }) },
    { weight: 6, arbitrary: fc.integer({ min: 7, max: 19 }) },
    { weight: 2, arbitrary: fc.integer({ min: 20, max: 40 }) },
    { weight: 1, arbitrary: fc.integer({ min: 120, max: 200 }) },
  ),
  inputs: fc.oneof(
    { weight: 2, arbitrary: fc.constant(1) },
    { weight: 11, arbitrary: fc.integer({ min: 1, max: 19 }) },
    { weight: 3, arbitrary: fc.integer({ min: 20, max: 64 }) },
  ),
  outputs: fc.oneof(
    { weight: 5, arbitrary: fc.integer({ min: 1, max: 19 }) },
    { weight: 8, arbitrary: fc.integer({ min: 25, max: 100 }) },
    { weight: 2, arbitrary: fc.constantFrom(32, 48, 64) },
    { weight: 5, arbitrary: fc.constantFrom(40, 72, 75) },
  ),
  seed: fc.integer(),
  spread: fc.constantFrom(0, 20),
  gap: fc.nat(3),
  last: fc.nat(),
});

/** Places that random sizes may miss. */
export const corners: readonly Call[] = [
  [0, 5, 20],
  [1, 9, 72],
  [2, 1, 72],
  [3, 6, 48],
  [4, 7, 33],
  [5, 4, 16],
  [6, 3, 31],
].map(([rows, inputs, outputs], i) => ({ rows, inputs, outputs, seed: i + 1, spread: 0, gap: i % 4, last: i }));

export const places = ['no rows', 'one input', 'whole panels', 'one row, panels over', 'two rows, panels over'];
/** All tiles up to that height. */
export const heights = (tileRows: number) => Array.from({ length: tileRows }, (_, i) => `tiles of ${i + 1}`);

export function reachPlaces(
  { rows, inputs, outputs }: Call,
  width: number,
  tileRows: number,
  reach: (place: string) => void,
): void {
  const panels = Math.ceil(outputs / width);
  if (rows === 0) reach('no rows');
  if (inputs === 1) reach('one input');
  if (outputs % width === 0) reach('whole panels');
  if (rows === 1 && panels > 4 && panels % 4 > 0) reach('one row, panels over');
  if (rows === 2 && panels > 2 && panels % 2 > 0) reach('two rows, panels over');
  if (rows > 0) reach(`tiles of ${Math.ceil(rows / Math.ceil(rows / tileRows))}`);
}

/** Uniform in [-1, 1) times 2^-spread … 2^spread; one in sixteen is 0, one in sixteen so small that products underflow. */
export function numbers(seed: number, spread: number): (length: number) => Float32Array {
  let state = seed | 1;
  const draw = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  const next = () => {
    const kind = draw() % 16;
    const exponent = kind === 1 ? -70 : (draw() % (2 * spread + 1)) - spread;
    return kind === 0 ? 0 : (draw() / 2 ** 31 - 1) * 2 ** exponent;
  };
  return length => Float32Array.from({ length }, next);
}

export function table(rows: number, cols: number, at: (i: number, j: number) => number): Float32Array {
  return Float32Array.from({ length: rows * cols }, (_, n) => at(Math.floor(n / cols), n % cols));
}
