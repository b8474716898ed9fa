/** Random numbers that repeat: xoshiro128** 1.1 (Blackman and Vigna 2018), four 32-bit words of state. */

/**
 * The state of a seed: word i is the 32-bit finaliser of MurmurHash3 of seed + (i + 1)·2654435769, modulo 2^32. The
 * finaliser is one to one, so at most one word is 0, as the generator needs.
 */
export function randomState(seed: number): Uint32Array {
  return Uint32Array.from({ length: 4 }, (_, i) => {
    let h = (seed + Math.imul(i + 1, 0x9e3779b9)) | 0;
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return h ^ (h >>> 16);
  });
}

/** The next of 2^32 equally likely integers; advances `state`. */
export function nextUint32(state: Uint32Array): number {
  const result = Math.imul(rotateLeft(Math.imul(state[1], 5), 7), 9) >>> 0;
  const shifted = state[1] << 9;
  state[2] ^= state[0];
  state[3] ^= state[1];
  state[1] ^= state[2];
  state[0] ^= state[3];
  state[2] ^= shifted;
  state[3] = rotateLeft(state[3], 11);
  return result;
}

/** A number in [0, 1), a multiple of 2^-32; advances `state`. */
export function nextUniform(state: Uint32Array): number {
  return nextUint32(state) / 2 ** 32;
}

function rotateLeft(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}
