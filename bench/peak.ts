/** The most that the engine gets out of one core: multiply-adds on registers alone, without a load in the loop. */
import { instantiate, type Target } from '../spec/kernels.js';

/** Independent sums: enough to hide the latency of an addition, and with their factors and a product 15 registers. */
const SUMS = 12;
/** Of one round of the loop: a multiply and an add in each of four lanes. */
export const FLOPS = SUMS * 4 * 2;

const [GET, SET, TEE] = [0x20, 0x21, 0x22];
/** Locals: the count of rounds, the sums, then the factors. */
const [X, W] = [1 + SUMS, 2 + SUMS];
const HALF = [0, 0, 0, 0x3f];

const simd = (...operation: number[]) => [0xfd, ...operation];
const [MUL, ADD] = [simd(0xe6, 0x01), simd(0xe4, 0x01)];
const RELAXED_MADD = simd(0x85, 0x02);
const halves = simd(0x0c, ...HALF, ...HALF, ...HALF, ...HALF);

/** A function that runs so many rounds, or undefined where the engine does not know the target's instructions. */
export function peak(target: Target): ((rounds: number) => number) | undefined {
  const sums = Array.from({ length: SUMS }, (_, i) => 1 + i);
  // Products that differ, or one would do for all: sum · x + w, and where they are fused sum + x · w.
  const multiplyAdd = (sum: number) =>
    target === 'relaxed'
      ? [GET, X, GET, W, GET, sum, ...RELAXED_MADD, SET, sum]
      : [GET, sum, GET, X, ...MUL, GET, W, ...ADD, SET, sum];
  const body = [
    ...[1, SUMS + 2, 0x7b], // locals: all v128
    ...[...halves, SET, X, ...halves, SET, W],
    ...[0x03, 0x40], // loop
    ...sums.flatMap(multiplyAdd),
    ...[GET, 0, 0x41, 1, 0x6b, TEE, 0, 0x0d, 0], // rounds - 1, and again unless that is 0
    0x0b,
    ...[GET, 1, ...sums.slice(1).flatMap(sum => [GET, sum, ...ADD]), ...simd(0x1f, 0)], // lane 0 of their sum
    0x0b,
  ];
  const bytes = Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 1, 0x7f, 1, 0x7d]), // one type: i32 -> f32
    ...section(3, [1, 0]),
    ...section(7, [1, 4, ...Buffer.from('peak'), 0, 0]),
    ...section(10, [1, ...leb(body.length), ...body]),
  ]);
  return (instantiate(bytes) as { peak(rounds: number): number } | undefined)?.peak;
}

function section(id: number, content: readonly number[]): number[] {
  return [id, ...leb(content.length), ...content];
}

/** Below 2^14. */
function leb(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, value >> 7];
}
