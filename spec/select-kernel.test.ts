/** The kernels that decide: the reference's decisions on the same probabilities, and the rows that follow from them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Config, marginsOf, type Routing, reference } from 'xmoe';
import { loadKernels, NO_RELAXED, targets } from './kernels.js';
import { assertWithinAll, lay, memory, putBytes, type Region } from './poison.js';
import { property } from './property.js';

interface Drawn {
  readonly numTokens: number;
  readonly numExperts: number;
  readonly probs: Float32Array;
  readonly threshold: number;
  readonly mask: Uint8Array | undefined;
  readonly gap: number;
  readonly last: number;
}

/** Rows of p with ties, zeros and masses that are exact; thresholds on them, out of reach on either side, and between. */
const drawn: fc.Arbitrary<Drawn> = fc
  .record({
    numTokens: fc.integer({ min: 0, max: 9 }),
    numExperts: fc.oneof(
      { weight: 9, arbitrary: fc.integer({ min: 1, max: 19 }) },
      { weight: 1, arbitrary: fc.integer({ min: 20, max: 300 }) },
    ),
    kind: fc.constantFrom('equal', 'sixteenths', 'steep', 'generic'),
    threshold: fc.oneof(
      fc.constantFrom(-1, 0, 0.25, 0.5, 0.75, 1, 1 + 2 ** -40, 2, Number.POSITIVE_INFINITY),
      fc.double({ min: 0, max: 1, noNaN: true }),
    ),
    isMasked: fc.boolean(),
    seed: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
    gap: fc.constantFrom(0, 4, 8),
    last: fc.integer({ min: 0, max: 10 }),
  })
  .map(({ numTokens, numExperts, kind, isMasked, seed, ...more }) => ({
    ...{ numTokens, numExperts, ...more },
    mask: isMasked ? Uint8Array.from({ length: numTokens }, (_, t) => (seed >> t) & 1) : undefined,
    probs: Float32Array.from({ length: numTokens * numExperts }, (_, i) => probability(kind, numExperts, seed + i)),
  }));

/** They need not sum to 1: kernels and reference take them as they come. */
function probability(kind: string, numExperts: number, seed: number): number {
  const u = Math.abs(Math.sin(seed * 12.9898) * 43758.5453) % 1;
  if (kind === 'equal') return 1 / numExperts;
  if (kind === 'sixteenths') return Math.floor(5 * u) / 16;
  return kind === 'steep' ? u ** 40 : (2 * u) / numExperts;
}

const words = ({ ptr, floats }: Region) => new Uint32Array(memory.buffer, ptr, floats.length);
const doubles = ({ ptr, floats }: Region) =>
  Array.from({ length: floats.length / 2 }, (_, i) => new DataView(memory.buffer).getFloat64(ptr + 8 * i, true));

for (const target of targets) {
  const kernels = loadKernels(target, memory);
  if (kernels === undefined) {
    test(`D2 ${target}: select_f32 and place_f32`, { skip: NO_RELAXED });
    continue;
  }

  property(
    `D2 ${target}: select_f32 and place_f32 decide as the reference, and tell who is given which rows`,
    drawn,
    ({ numTokens: n, numExperts, probs, threshold, mask, gap, last }, reach) => {
      const most = n * numExperts;
      const sizes = {
        ...{ probs: most, mask: Math.ceil(n / 4), row: numExperts + 4 },
        ...{ tokenOffsets: n + 1, expertIndex: most, expertProbs: most, margins: 2 * n },
        ...{ expertOffsets: numExperts + 1, xRows: most, yRows: most, weights: most },
      };
      const at = lay(sizes, gap, last);
      at.probs.floats.set(probs);
      const chosen = [at.tokenOffsets.ptr, at.expertIndex.ptr, at.expertProbs.ptr] as const;
      const maskPtr = mask ? at.mask.ptr : 0;
      if (mask)
        putBytes(
          at.mask,
          Uint8Array.from({ length: 4 * at.mask.floats.length }, (_, i) => mask[i] ?? 0),
        );
      kernels.select_f32(at.probs.ptr, maskPtr, n, numExperts, threshold, ...chosen, at.margins.ptr, at.row.ptr);
      const [x, y] = [
        [4000, 12],
        [8000, 20],
      ] as const;
      const into = [at.expertOffsets.ptr, at.xRows.ptr, at.yRows.ptr, at.weights.ptr] as const;
      kernels.place_f32(...chosen, n, numExperts, ...x, ...y, ...into);

      const matrix = { rows: n, cols: numExperts, data: probs };
      const routing: Routing = { logits: matrix, probs: matrix };
      const isDense = threshold === Number.POSITIVE_INFINITY;
      const common = { numExperts, capacityFactor: null, activation: 'relu' } as const;
      const config: Config = isDense ? { router: 'dense', ...common } : { router: 'threshold', threshold, ...common };
      const inputs = mask ? { tokenMask: mask } : {};
      const plan = reference.dispatch(routing, inputs, config);
      const { selection, expertOffsets, tokenIndex, combineWeight } = plan;
      const { tokenOffsets, expertIndex } = selection;
      const numPairs = expertIndex.length;
      assert.deepEqual([...words(at.tokenOffsets)], [...tokenOffsets]);
      assert.deepEqual([...words(at.expertIndex).subarray(0, numPairs)], [...expertIndex]);
      assert.deepEqual([...words(at.expertOffsets)], [...expertOffsets]);
      assert.deepEqual([...at.weights.floats.subarray(0, numPairs)], [...combineWeight]);
      const addresses = (ptr: number, stride: number) => Array.from(tokenIndex, t => ptr + stride * t);
      assert.deepEqual([...words(at.xRows).subarray(0, numPairs)], addresses(...x));
      assert.deepEqual([...words(at.yRows).subarray(0, numPairs)], addresses(...y));

      const margins = Array<number>(n).fill(Number.POSITIVE_INFINITY);
      for (const margin of marginsOf(routing, plan, config, inputs)) {
        if (margin.kind === 'threshold') margins[margin.token] = Math.min(margins[margin.token], margin.value);
      }
      assert.deepEqual(doubles(at.margins), margins);
      assertWithinAll(at);
      if (numPairs > n) reach('several experts');
      if (margins.includes(0)) reach('a mass on the threshold');
      if (isDense) reach('dense');
      if (mask?.includes(0)) reach('padding');
    },
    ['several experts', 'a mass on the threshold', 'dense', 'padding'],
  );
}
