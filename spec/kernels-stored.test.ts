/** The products of weights stored in fewer bits: halves have the bits of float32, int8 the integers of the definition. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { quantizeRow } from 'xmoe';
import { assertSame } from './close.js';
import {
  type Format,
  inputsPerStep,
  type Kernels,
  loadKernels,
  NO_RELAXED,
  packed,
  type StoredLinear,
  type Target,
  targets,
  type Width,
  widths,
} from './kernels.js';
import { type Call, calls, corners, heights, numbers, places, reachPlaces, table } from './kernels-calls.js';
import { lay, memory, putAddresses, putBytes, run } from './poison.js';
import { property } from './property.js';

const { fround } = Math;

/** V8's baseline compiler in Node 20 gives wrong sums for the instruction of `int8_dot`: the host does not use it there. */
const int8s = process.versions.node.startsWith('20.') ? (['int8'] as const) : (['int8', 'int8_dot'] as const);

/** Integers from `low` to `high`, both often. */
function integers(seed: number, low: number, high: number): (length: number) => number[] {
  const draw = numbers(seed, 0);
  return length =>
    Array.from(draw(length), u => {
      if (u === 0) return low;
      return Math.abs(u) < 2 ** -60 ? high : low + Math.floor(((u + 1) / 2) * (high - low + 1));
    });
}

/** The value of 16 bits: e exponent bits, then f fraction bits, without infinities and NaNs. */
function halfValue(bits: number, exponentBits: number): number {
  const fractionBits = 15 - exponentBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  const exponent = (bits & 0x7fff) >> fractionBits;
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  const magnitude = exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias);
  return bits & 0x8000 ? -magnitude : magnitude;
}

/** Halves: mostly from 2^-8 to 2^8, some 0, some subnormal. */
function halves(seed: number, exponentBits: number): (length: number) => number[] {
  const fractionBits = 15 - exponentBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  const bits = integers(seed, 0, 0xffff);
  const kinds = integers(seed + 1, 0, 15);
  return length => {
    const kind = kinds(length);
    return bits(length).map((value, i) => {
      const signAndFraction = value & (0x8000 | (2 ** fractionBits - 1));
      if (kind[i] === 0) return value & 0x8000;
      return kind[i] === 1 ? signAndFraction : signAndFraction | ((bias - 8 + kind[i]) << fractionBits);
    });
  };
}

/** The outputs of a product over rows of 4-byte words, rows listed backwards, in the order of x; all that is padding is 0. */
function outputs(
  kernels: Kernels,
  target: Target,
  format: Format,
  width: Width,
  call: Call,
  linear: StoredLinear,
  rowWords: readonly Uint8Array[],
  tileRows: number,
) {
  const { rows, gap, last } = call;
  const { n, k } = linear;
  const panels = packed(linear, format, target, width);
  const numPanels = Math.ceil(n / width);
  const padded = numPanels * width;
  const stride = rows > 0 ? rowWords[0].length / 4 : 0;
  const scratch = format === 'f16' || format === 'bf16' ? width * (k + 1) : 0;
  const at = lay(
    { x: rows * stride, w: panels.length / 4, from: rows, to: rows, out: rows * padded, scratch },
    gap,
    last,
  );
  putBytes(at.x, Uint8Array.from(rowWords.flatMap(words => [...words])));
  putBytes(at.w, panels);
  const backwards = (ptr: number, stride: number) =>
    Array.from({ length: rows }, (_, i) => ptr + 4 * stride * (rows - 1 - i));
  putAddresses(at.from, backwards(at.x.ptr, stride));
  putAddresses(at.to, backwards(at.out.ptr, padded));
  const steps = Math.ceil(k / inputsPerStep(format, target));
  const kernel = kernels[`product_${format}_${width}`];
  const product = () => kernel(at.w.ptr, steps, at.from.ptr, rows, at.to.ptr, 0, numPanels, tileRows, at.scratch.ptr);
  const out = run(product, at.out, undefined, at.scratch);
  assertSame(run(product, at.out, undefined, at.scratch), out, 'again', true);
  return table(rows, n, (i, j) => out[i * padded + j]);
}

const floatBytes = (floats: Float32Array) => new Uint8Array(floats.slice().buffer);

for (const target of targets) {
  const kernels = loadKernels(target, memory);
  if (kernels === undefined) {
    test(`${target}: products of stored weights`, { skip: NO_RELAXED });
    continue;
  }

  for (const width of widths) {
    for (const [format, exponentBits] of [
      ['f16', 5],
      ['bf16', 8],
    ] as const) {
      property(
        `${target}: product_${format}_${width} has the bits of product_f32_${width} over the same weights`,
        calls,
        (call, reach) => {
          const { rows, inputs: k, outputs: n, seed, spread } = call;
          const draw = numbers(seed, spread);
          const x = Array.from({ length: rows }, () => floatBytes(draw(k)));
          const bits = halves(seed, exponentBits)(n * k);
          const bias = draw(n);
          const half: StoredLinear = { n, k, weights: bits, bias };
          const wide: StoredLinear = { n, k, weights: bits.map(b => halfValue(b, exponentBits)), bias };
          const expected = outputs(kernels, target, 'f32', width, call, wide, x, 4);
          for (const tileRows of [4, 5, 6]) {
            assertSame(outputs(kernels, target, format, width, call, half, x, tileRows), expected, format, true);
          }
          reachPlaces(call, width, 4, reach);
          if (rows > 4) reach('widened');
        },
        [...places, ...heights(4), 'widened'],
        { share: 0.5, examples: corners },
      );
    }

    for (const format of int8s) {
      property(
        `${target}: product_${format}_${width} is the exact sum, times two scales, plus the bias`,
        calls,
        (call, reach) => {
          const { rows, inputs: k, outputs: n, seed } = call;
          const draw = numbers(seed, 3);
          const weights = integers(seed, -127, 127)(n * k);
          const [bias, scales, rowScales] = [draw(n), draw(n).map(Math.abs), draw(rows).map(Math.abs)];
          const codes = integers(seed + 1, 0, 127)(rows * k);
          const zeros = integers(seed + 2, 0, 127)(rows);
          const x = Array.from({ length: rows }, (_, i) =>
            rowOf(target, codes.slice(i * k, (i + 1) * k), rowScales[i], zeros[i]),
          );
          const expected = table(rows, n, (i, j) => {
            let sum = 0;
            for (let l = 0; l < k; l++) sum += weights[j * k + l] * (codes[i * k + l] - zeros[i]);
            return fround(fround(fround(fround(sum) * rowScales[i]) * scales[j]) + bias[j]);
          });
          for (const tileRows of [4, 5, 6]) {
            const linear: StoredLinear = { n, k, weights, bias, scales };
            assertSame(outputs(kernels, target, format, width, call, linear, x, tileRows), expected, format, true);
          }
          reachPlaces(call, width, target === 'simd' ? 4 : 6, reach);
        },
        [...places, ...heights(target === 'simd' ? 4 : 6)],
        { share: 0.5, examples: corners },
      );
    }
  }

  test(`${target}: the largest codes and weights neither saturate nor wrap`, () => {
    const k = 64;
    const call: Call = { rows: 3, inputs: k, outputs: 16, seed: 1, spread: 0, gap: 0, last: 0 };
    for (const value of [127, -127]) {
      const linear: StoredLinear = {
        ...{ n: 16, k, weights: Array(16 * k).fill(value), bias: Array(16).fill(0), scales: Array(16).fill(1) },
      };
      const x = Array.from({ length: 3 }, () => rowOf(target, Array(k).fill(127), 1, 0));
      for (const format of int8s) {
        const out = outputs(kernels, target, format, 8, call, linear, x, 4);
        assert.deepEqual([...new Set(out)], [value * 127 * k], format);
      }
    }
  });

  property(
    `${target}: quantize_i7 gives the integers, the scale and the zero point of the definition`,
    fc.tuple(calls, fc.constantFrom('mixed', 'not negative', 'not positive', 'zero', 'tiny', 'huge')),
    ([call, kind], reach) => {
      const { rows, inputs: k, seed, spread, gap, last } = call;
      const factor = { tiny: 2 ** -130, huge: 2 ** 100 }[kind as string] ?? 1;
      const x = numbers(
        seed,
        spread,
      )(rows * (k + gap)).map(value => {
        if (kind === 'zero') return 0;
        if (kind === 'not negative') return Math.abs(value);
        return kind === 'not positive' ? -Math.abs(value) : value * factor;
      });
      const rowBytes = rowOf(target, Array(k).fill(0), 1, 0).length;
      const at = lay({ x: rows * (k + gap), codes: (rows * rowBytes) / 4 }, gap, last);
      at.x.floats.set(x);
      const codes = run(() => kernels.quantize_i7(at.x.ptr, k + gap, rows, k, at.codes.ptr), at.codes);
      const expected = Array.from({ length: rows }, (_, i) => {
        const row = quantizeRow(x.subarray(i * (k + gap), i * (k + gap) + k));
        return [...rowOf(target, [...row.codes], row.scale, row.zero)];
      });
      assert.deepEqual([...new Uint8Array(codes.buffer)], expected.flat());
      reach(kind);
    },
    ['mixed', 'not negative', 'not positive', 'zero', 'tiny', 'huge'],
  );
}

/** A row of codes as the kernels read it: of 8 bits or 16, zeros to whole steps, then its scale and zero point. */
function rowOf(target: Target, codes: readonly number[], scale: number, zero: number): Uint8Array {
  const perStep = inputsPerStep('int8', target);
  const steps = Math.ceil(codes.length / perStep);
  const bytes = new DataView(new ArrayBuffer(4 * steps + 8));
  codes.forEach((code, l) => {
    if (target === 'relaxed') bytes.setUint8(l, code);
    else bytes.setUint16(2 * l, code, true);
  });
  bytes.setFloat32(4 * steps, scale, true);
  bytes.setInt32(4 * steps + 4, zero, true);
  return new Uint8Array(bytes.buffer);
}
