/** Tensors as bytes, and the sizes of their elements. */

/** Row-major. `bytes` are little-endian, as in a file, and at any alignment. */
export interface Tensor {
  readonly dtype: Dtype;
  /** [] is one element. */
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export type FloatDtype = 'F64' | 'F32' | 'F16' | 'BF16';
export type IntegerDtype = 'U64' | 'I64' | 'U32' | 'I32' | 'U16' | 'I16' | 'I8' | 'U8' | 'BOOL';
/** The rest are read and written as bytes, and not converted. */
export type Dtype = keyof typeof ELEMENT_BYTES;

/** Bytes of an element, in the order of the official writer: wide elements first, so that all of them are aligned. */
export const ELEMENT_BYTES = {
  ...{ U64: 8, I64: 8, F64: 8, C64: 8 },
  ...{ F32: 4, U32: 4, I32: 4 },
  ...{ BF16: 2, F16: 2, U16: 2, I16: 2 },
  ...{ F8_E5M2FNUZ: 1, F8_E4M3FNUZ: 1, F8_E8M0: 1, F8_E4M3: 1, F8_E5M2: 1, I8: 1, U8: 1, BOOL: 1 },
};

/** All dtypes, in the same order. */
export const DTYPES = Object.keys(ELEMENT_BYTES) as readonly Dtype[];

export function isDtype(name: string): name is Dtype {
  return Object.hasOwn(ELEMENT_BYTES, name);
}

/**
 * Bytes of a tensor of this dtype and shape; undefined when the product passes 2^53 - 1 on its way from left to right.
 * So [2^40, 2^40, 0] has no length, while [0, 2^40, 2^40] has length 0: as in the official reader, whose limit is 2^64.
 */
export function byteLength(dtype: Dtype, shape: readonly number[]): number | undefined {
  let product = 1;
  for (const factor of [...shape, ELEMENT_BYTES[dtype]]) {
    product *= factor;
    if (product > Number.MAX_SAFE_INTEGER) return undefined;
  }
  return product;
}
