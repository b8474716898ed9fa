/** The balanced assignment of BASE training, against enumeration and against a certificate of optimality. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { balancedAssignment, type Matrix } from 'xmoe';
import { property } from './property.js';

function matrix(logits: readonly (readonly number[])[], numExperts = logits[0].length): Matrix {
  return { rows: logits.length, cols: numExperts, data: Float64Array.from(logits.flat()) };
}

function total({ data, cols }: Matrix, expertOf: Int32Array): number {
  return expertOf.reduce((sum, e, t) => sum + data[t * cols + e], 0);
}

function assertBalanced({ rows, cols }: Matrix, expertOf: Int32Array): void {
  const load = new Array(cols).fill(0);
  for (const e of expertOf) load[e]++;
  assert.equal(expertOf.length, rows);
  assert.deepEqual(load, new Array(cols).fill(rows / cols));
}

/** The largest total over every balanced assignment, and how many reach it. */
function enumerate({ rows, cols, data }: Matrix): { best: number; count: number } {
  const load = new Array(cols).fill(0);
  let [best, count] = [Number.NEGATIVE_INFINITY, 0];
  function place(t: number, sum: number): void {
    if (t === rows) {
      count = sum > best ? 1 : count + Number(sum === best);
      best = Math.max(best, sum);
      return;
    }
    for (let e = 0; e < cols; e++) {
      if (load[e] === rows / cols) continue;
      load[e]++;
      place(t + 1, sum + data[t * cols + e]);
      load[e]--;
    }
  }
  place(0, 0);
  return { best, count };
}

/**
 * Is there a cycle of experts along which one token each moves on to the next, for a gain of more than `slack` a move?
 * A balanced assignment has the largest total if and only if no cycle gains anything. Bellman-Ford: without such a
 * cycle, E rounds of longest paths come to rest.
 */
function hasImprovingCycle({ rows, cols, data }: Matrix, expertOf: Int32Array, slack: number): boolean {
  const gain = Array.from({ length: cols }, () => new Array<number>(cols).fill(Number.NEGATIVE_INFINITY));
  for (let t = 0; t < rows; t++) {
    const e = expertOf[t];
    for (let f = 0; f < cols; f++) {
      if (f !== e) gain[e][f] = Math.max(gain[e][f], data[t * cols + f] - data[t * cols + e] - slack);
    }
  }
  const longest = new Array<number>(cols).fill(0);
  for (let round = 0; round <= cols; round++) {
    let changed = false;
    for (let e = 0; e < cols; e++) {
      for (let f = 0; f < cols; f++) {
        if (longest[e] + gain[e][f] > longest[f]) {
          longest[f] = longest[e] + gain[e][f];
          changed = true;
        }
      }
    }
    if (!changed) return false;
  }
  return true;
}

test('where all tokens prefer expert 0, it gets those that would lose most elsewhere', () => {
  // the losses are 1, 3, ½ and 2
  const logits = matrix([
    [5, 4],
    [4, 1],
    [3, 2.5],
    [2, 0],
  ]);
  const expertOf = balancedAssignment(logits);
  assert.deepEqual([...expertOf], [1, 0, 1, 0]);
  assert.equal(total(logits, expertOf), 12.5);
});

test('a token may push a second one, and that a third one, to the last free place', () => {
  // tokens 0 and 1 would have 10 each at their best; that left 0 for token 2, where the chain leaves 9 + 9 + 10
  const logits = [
    [10, 9, 0],
    [0, 10, 9],
    [10, 0, 0],
  ];
  assert.deepEqual([...balancedAssignment(matrix(logits))], [1, 2, 0]);
  // the same with two places each: one more token at every expert, which would lose 100 by a move
  const fixed = [
    [100, 0, 0],
    [0, 100, 0],
    [0, 0, 100],
  ];
  assert.deepEqual([...balancedAssignment(matrix([...logits, ...fixed]))], [1, 2, 0, 0, 1, 2]);
  assert.deepEqual([...balancedAssignment(matrix([...fixed, ...logits]))], [0, 1, 2, 1, 2, 0]);
});

test('equal logits fill the experts in order', () => {
  const equal = Array.from({ length: 6 }, () => [0.5, 0.5, 0.5]);
  assert.deepEqual([...balancedAssignment(matrix(equal))], [0, 0, 1, 1, 2, 2]);
});

test('no token, one expert, and one token for each expert', () => {
  assert.deepEqual([...balancedAssignment(matrix([], 3))], []);
  assert.deepEqual([...balancedAssignment(matrix([[1], [-2], [0]]))], [0, 0, 0]);
  assert.deepEqual([...balancedAssignment(matrix([[-7]]))], [0]);
  const identity = matrix([
    [0, 0, 1],
    [1, 0, 0],
    [0, 1, 0],
  ]);
  assert.deepEqual([...balancedAssignment(identity)], [2, 0, 1]);
});

test('logits near overflow and underflow are told apart', () => {
  const max = Number.MAX_VALUE;
  const extreme = [
    [max, -max, 1e-300],
    [max, max, -max],
    [-max, max, -max],
  ];
  assert.deepEqual([...balancedAssignment(matrix(extreme))], [2, 0, 1]);
  const losses = [
    [max, -max / 2],
    [max, -max],
  ];
  assert.deepEqual([...balancedAssignment(matrix(losses))], [1, 0]);
  const tiny = [
    [2e-300, 1e-300],
    [4e-300, 1e-300],
  ];
  assert.deepEqual([...balancedAssignment(matrix(tiny))], [1, 0]);
  assert.deepEqual([...balancedAssignment(matrix(tiny.map(row => row.map(z => z * 2 ** -70))))], [1, 0]);
});

test('tokens that are no multiple of the experts, and logits that are not finite, are errors', () => {
  const logits = (rows: number, cols: number, fill: number) =>
    matrix(Array.from({ length: rows }, () => Array(cols).fill(fill)));
  assert.throws(() => balancedAssignment(logits(5, 2, 0)), {
    name: 'RangeError',
    message: '"logits" expected rows (tokens) a multiple of the 2 experts, got 5',
  });
  assert.throws(() => balancedAssignment(logits(1, 4, 0)), RangeError);
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    const one = logits(4, 2, 0);
    one.data[5] = bad;
    assert.throws(() => balancedAssignment(one), {
      name: 'RangeError',
      message: `"logits" expected finite values, got ${bad} at [2, 1]`,
    });
  }
});

interface Case {
  readonly logits: Matrix;
  /** What rounding may cost in one move: 0 where all sums of logits are exact. */
  readonly slack: number;
}

/** T/E and E; in one case of twenty, large. */
const dimensions = fc.oneof(
  { weight: 19, arbitrary: fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 19 })) },
  { weight: 1, arbitrary: fc.tuple(fc.integer({ min: 6, max: 12 }), fc.integer({ min: 20, max: 40 })) },
);
/** Few enough to enumerate. */
const smallDimensions = fc.constantFrom([7, 1], [1, 2], [3, 2], [5, 2], [1, 3], [2, 3], [3, 3], [2, 4], [1, 5], [1, 6]);

const reals = fc.maxSafeInteger().map(i => i / 2 ** 53);
const allMagnitudes = fc.double({ min: -1e300, max: 1e300, noNaN: true });

function integers(largest: number): fc.Arbitrary<number> {
  return fc.integer({ min: -largest, max: largest });
}

/** Some with a popular order of experts that most tokens agree on. */
function cases(sizes: fc.Arbitrary<readonly number[]>, ...values: fc.Arbitrary<number>[]): fc.Arbitrary<Case> {
  return fc.tuple(sizes, fc.constantFrom(...values), fc.boolean()).chain(([[places, cols], value, popular]) => {
    const rows = places * cols;
    const list = (length: number) => fc.array(value, { minLength: length, maxLength: length });
    return fc.tuple(list(rows * cols), list(cols)).map(([own, shared]) => {
      const data = Float64Array.from(own, (z, i) => (popular ? z + 4 * shared[i % cols] : z));
      const largest = data.reduce((max, z) => Math.max(max, Math.abs(z)), 0);
      const exact = data.every(Number.isInteger) && largest < 2 ** 40;
      return { logits: { rows, cols, data }, slack: exact ? 0 : rows * cols * 2 ** -52 * largest };
    });
  });
}

property(
  'no other balanced assignment has a larger total',
  cases(smallDimensions, integers(1), integers(3), integers(1e6)),
  ({ logits }, reach) => {
    const expertOf = balancedAssignment(logits);
    assertBalanced(logits, expertOf);
    const { best, count } = enumerate(logits);
    assert.equal(total(logits, expertOf), best);
    reach(count > 1 ? 'several best' : 'one best');
  },
  ['several best', 'one best'],
);

property(
  'no cycle of moves gains more than rounding',
  cases(dimensions, integers(0), integers(2), integers(1e6), reals, allMagnitudes),
  ({ logits, slack }, reach) => {
    const expertOf = balancedAssignment(logits);
    assertBalanced(logits, expertOf);
    assert.ok(!hasImprovingCycle(logits, expertOf, slack));
    reach(slack === 0 ? 'exact' : 'rounded');
    const favourites = expertOf.map((_, t) => favourite(logits, t));
    if (total(logits, favourites) > total(logits, expertOf)) reach('balance costs something');
  },
  ['exact', 'rounded', 'balance costs something'],
);

function favourite({ data, cols }: Matrix, t: number): number {
  const own = data.subarray(t * cols, (t + 1) * cols);
  return own.indexOf(Math.max(...own));
}

property(
  'the total does not depend on the order of the tokens, and moves with constants added to a token or an expert',
  fc.tuple(cases(dimensions, integers(2), integers(1000)), fc.nat(), fc.integer({ min: -50, max: 50 })),
  ([{ logits }, random, constant]) => {
    const { rows, cols, data } = logits;
    const best = total(logits, balancedAssignment(logits));
    const changed = (value: (t: number, e: number) => number): number => {
      const other = { rows, cols, data: data.map((_, i) => value(Math.floor(i / cols), i % cols)) };
      return total(other, balancedAssignment(other));
    };
    const [token, expert] = [random % rows, random % cols];
    assert.equal(
      changed((t, e) => data[((t + token) % rows) * cols + e]),
      best,
      'tokens rotated',
    );
    assert.equal(
      changed((t, e) => data[(rows - 1 - t) * cols + e]),
      best,
      'tokens reversed',
    );
    assert.equal(
      changed((t, e) => data[t * cols + ((e + expert) % cols)]),
      best,
      'experts rotated',
    );
    assert.equal(
      changed((t, e) => data[t * cols + e] + (t === token ? constant : 0)),
      best + constant,
    );
    assert.equal(
      changed((t, e) => data[t * cols + e] + (e === expert ? constant : 0)),
      best + constant * (rows / cols),
    );
  },
);

property(
  'logits times a power of two, and logits in float32, have the same assignment',
  fc.tuple(
    cases(dimensions, integers(1), integers(1000), integers(1e6)),
    fc.constantFrom(-1074, -1000, -1, 7, 935, 999),
  ),
  ([{ logits }, exponent]) => {
    const expected = balancedAssignment(logits);
    const scaled = { ...logits, data: logits.data.map(z => z * 2 ** exponent) };
    assert.deepEqual(balancedAssignment(scaled), expected);
    assert.deepEqual(balancedAssignment({ ...logits, data: Float32Array.from(logits.data) }), expected);
  },
);
