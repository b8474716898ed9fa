/** float16 (IEEE 754 binary16) and bfloat16 in 16 bits, and their way to float64 and back. */

/** A sign bit, then 15 bits of exponent and fraction. `minExponent` is that of the smallest normal number. */
export interface HalfFormat {
  readonly fractionBits: number;
  readonly minExponent: number;
}

export const FLOAT16: HalfFormat = { fractionBits: 10, minExponent: -14 };
/** The upper half of a float32. */
export const BFLOAT16: HalfFormat = { fractionBits: 7, minExponent: -126 };

const scratch = new DataView(new ArrayBuffer(8));

/** The value of 16 bits, exactly. */
export function widenHalf(bits: number, format: HalfFormat): number {
  const { fractionBits, minExponent } = format;
  const sign = bits & 0x8000 ? -1 : 1;
  const magnitude = bits & 0x7fff;
  if (magnitude >= infinity(format)) return magnitude === infinity(format) ? sign * Infinity : Number.NaN;
  const steps = Math.max(magnitude >> fractionBits, 1) - 1; // subnormals have the exponent of the smallest normals
  const significand = magnitude - (steps << fractionBits);
  return sign * significand * 2 ** (minExponent + steps - fractionBits);
}

/**
 * The 16 bits nearest to a float64: one rounding, ties to even, with subnormals, overflow to infinity, and the sign of
 * zero. Not by way of float32, whose own rounding can make a tie of what is none. NaN becomes the quiet NaN.
 */
export function narrowHalf(value: number, format: HalfFormat): number {
  const { fractionBits, minExponent } = format;
  if (Number.isNaN(value)) return infinity(format) | (1 << (fractionBits - 1));
  scratch.setFloat64(0, value);
  const high = scratch.getUint32(0);
  const sign = (high >>> 16) & 0x8000;
  const exponent = Math.max(((high >>> 20) & 0x7ff) - 1023, minExponent);
  if (exponent > 1 - minExponent) return sign | infinity(format);
  // The quotient is exact; the sum rounds it to an integer, because float64 has no fraction bits left above 2^52.
  const significand = Math.abs(value) / 2 ** (exponent - fractionBits) + 2 ** 52 - 2 ** 52;
  // Rounding up to the next power of two carries into the exponent, from the largest number into infinity.
  return sign | (((exponent - minExponent) << fractionBits) + significand);
}

/** All exponent bits, no fraction bits. */
function infinity({ fractionBits }: HalfFormat): number {
  return (0x7fff >> fractionBits) << fractionBits;
}
