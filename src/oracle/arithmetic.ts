/** The arithmetic that an implementation states, by which its bounds are computed. */

/** A format of floating-point numbers. */
export interface FloatFormat {
  readonly name: 'f64' | 'f32' | 'tf32' | 'f16' | 'bf16';
  /** Half the distance of 1 to the next number: 2^-53, 2^-24, 2^-11, 2^-11, 2^-8. */
  readonly unitRoundoff: number;
  /** The smallest positive normal number: below it errors are absolute. */
  readonly smallestNormal: number;
  /** The largest finite number. */
  readonly largest: number;
}

export type ArithmeticName = FloatFormat['name'] | 'int8';

/** Logits, probs, selection and loss are f32 or better in every arithmetic: the name is the experts' format. */
export interface Arithmetic {
  readonly name: ArithmeticName;
}
