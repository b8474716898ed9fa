import { highHalf } from './vector';

/**
 * The threshold router's choice: each token's experts, most probable first, until their mass reaches the threshold.
 *
 * Rule    D1-D3, M1: decision for decision those of the reference on the same p, masses summed in float64
 * Shapes  probs [numTokens, numExperts], dense -> tokenOffsets u32 [T + 1]; expertIndex u32 and expertProbs float32 of each
 *         pair, one to E for a token; margins float64 [T], the least |mass before a rank - threshold| of each token. Returns
 *         how many pairs there are
 * Units   byte addresses, any multiple of 4. mask: a byte for each token, 0 for padding, which chooses none; or 0, no mask.
 *         rowPtr: room for E floats and four more. A threshold over 1 is out of reach: every expert
 * Ties    equal probabilities: the lower expert index first
 */
export function select_f32(
  probsPtr: usize, maskPtr: usize, numTokens: i32, numExperts: i32, threshold: f64,
  tokenOffsets: usize, expertIndex: usize, expertProbs: usize, margins: usize, rowPtr: usize,
): u32 {
  const rowBytes = <usize>numExperts << 2;
  let numPairs: u32 = 0;
  store<u32>(tokenOffsets, 0);
  for (; numTokens > 0; numTokens--, probsPtr += rowBytes, tokenOffsets += 4, margins += 8) {
    let mass: f64 = 0, margin: f64 = Infinity, rank = 0;
    const isReal = maskPtr == 0 || load<u8>(maskPtr++) == 1;
    if (isReal) copyRow(probsPtr, rowPtr, rowBytes);
    while (isReal && (rank == 0 || (rank < numExperts && (mass < threshold || threshold > 1)))) {
      const at = best(rowPtr, rowBytes), p = load<f32>(at);
      store<u32>(expertIndex, <u32>(at - rowPtr) >> 2);
      store<f32>(expertProbs, p);
      store<f32>(at, -1);
      expertIndex += 4;
      expertProbs += 4;
      mass += <f64>p;
      if (++rank < numExperts) margin = min(margin, abs(mass - threshold));
    }
    numPairs += rank;
    store<u32>(tokenOffsets, numPairs, 4);
    store<f64>(margins, margin);
  }
  return numPairs;
}

/** A row, and then what is no probability, up to a whole vector. */
// @ts-ignore: decorator
@inline
function copyRow(from: usize, to: usize, rowBytes: usize): void {
  const none = f32x4.splat(-1), end = from + rowBytes;
  for (; from + 12 < end; from += 16, to += 16) v128.store(to, v128.load(from));
  v128.store(to, none);
  for (; from < end; from += 4, to += 4) store<f32>(to, load<f32>(from));
}

/** Where the largest of a row is, the first of equal ones. */
// @ts-ignore: decorator
@inline
function best(rowPtr: usize, rowBytes: usize): usize {
  const end = rowPtr + rowBytes;
  let largest = v128.load(rowPtr);
  for (let at = rowPtr + 16; at < end; at += 16) largest = f32x4.pmax(largest, v128.load(at));
  const pairs = f32x4.pmax(largest, highHalf(largest));
  const wanted = f32x4.splat(max(f32x4.extract_lane(pairs, 0), f32x4.extract_lane(pairs, 1)));
  for (let at = rowPtr; at < end; at += 16) {
    const equal = i32x4.bitmask(f32x4.eq(v128.load(at), wanted));
    if (equal) return at + (<usize>ctz(equal) << 2);
  }
  return rowPtr; // NaN is equal to nothing
}

/**
 * Who is given which rows: the pairs by expert and, within one, by token.
 *
 * Shapes  tokenOffsets [T + 1], expertIndex and pairWeights of each pair, as of select_f32 -> expertOffsets u32 [E + 1]; for
 *         each row, A in all, the addresses of the token's x and y, and its weight: xRows, yRows u32, weights float32
 * Units   byte addresses; xBytes, yBytes: from a row of x, or of y, to the next
 */
export function place_f32(
  tokenOffsets: usize, expertIndex: usize, pairWeights: usize, numTokens: i32, numExperts: i32,
  xPtr: usize, xBytes: usize, yPtr: usize, yBytes: usize,
  expertOffsets: usize, xRows: usize, yRows: usize, weights: usize,
): void {
  const numPairs = <usize>load<u32>(tokenOffsets + (<usize>numTokens << 2));
  const next = expertOffsets + 4; // of each expert: how many rows, then where its next one goes, at last where they end
  memory.fill(expertOffsets, 0, (<usize>numExperts + 1) << 2);
  for (let pair: usize = 0; pair < numPairs; pair++) {
    const counted = next + (<usize>load<u32>(expertIndex + (pair << 2)) << 2);
    store<u32>(counted, load<u32>(counted) + 1);
  }
  let first: u32 = 0;
  for (let e = 0; e < numExperts; e++) {
    const at = next + (<usize>e << 2), count = load<u32>(at);
    store<u32>(at, first);
    first += count;
  }
  for (let pair: usize = 0; numTokens > 0; numTokens--, xPtr += xBytes, yPtr += yBytes) {
    tokenOffsets += 4;
    for (const end = <usize>load<u32>(tokenOffsets); pair < end; pair++) {
      const at = next + (<usize>load<u32>(expertIndex + (pair << 2)) << 2), row = load<u32>(at);
      const skipped = <usize>row << 2;
      store<u32>(at, row + 1);
      store<u32>(xRows + skipped, <u32>xPtr);
      store<u32>(yRows + skipped, <u32>yPtr);
      store<f32>(weights + skipped, load<f32>(pairWeights + (pair << 2)));
    }
  }
}
