/** The arithmetic that an implementation states, by which its bounds are computed. */
import { oneOf } from '../../check.js';

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

/** Source: IEEE 754-2019, table 3.5; bf16 and tf32 have the exponents of f32, and 8 and 11 bits of significand. */
export const formats: Readonly<Record<FloatFormat['name'], FloatFormat>> = {
  f64: { name: 'f64', unitRoundoff: 2 ** -53, smallestNormal: 2 ** -1022, largest: Number.MAX_VALUE },
  f32: { name: 'f32', unitRoundoff: 2 ** -24, smallestNormal: 2 ** -126, largest: (2 - 2 ** -23) * 2 ** 127 },
  tf32: { name: 'tf32', unitRoundoff: 2 ** -11, smallestNormal: 2 ** -126, largest: (2 - 2 ** -10) * 2 ** 127 },
  f16: { name: 'f16', unitRoundoff: 2 ** -11, smallestNormal: 2 ** -14, largest: 65504 },
  bf16: { name: 'bf16', unitRoundoff: 2 ** -8, smallestNormal: 2 ** -126, largest: (2 - 2 ** -7) * 2 ** 127 },
};

/**
 * What a library promises of its elementary functions, in ulp of their results; an ulp is at most 2u of them. `exp` may
 * lose with its argument: `ulps + slope · |x|`. `absolute` is in units of u, for functions that promise no more.
 */
export interface Elementary {
  readonly exp: { readonly ulps: number; readonly slope: number };
  readonly tanh: { readonly ulps: number; readonly absolute: number };
  readonly erf: { readonly ulps: number; readonly absolute: number };
  readonly division: { readonly ulps: number };
}

export const libraries = {
  /**
   * C, C++, CUDA, Rust, NumPy, PyTorch, JavaScript. glibc: exp 1, tanh 2, erf 1 ulp ("Known Maximum Errors in Math
   * Functions" of its manual); CUDA: expf 2, tanhf 2, erff 2, and 2 + 1.173 |x| for the intrinsic `__expf` (CUDA C++
   * Programming Guide, "Mathematical Functions"); vector libraries (SLEEF, SVML) 4. The widest of each.
   */
  c: {
    exp: { ulps: 4, slope: 1.2 },
    tanh: { ulps: 4, absolute: 0 },
    erf: { ulps: 4, absolute: 0 },
    division: { ulps: 2 },
  },
  /**
   * WGSL, "Accuracy of concrete floating point expressions": exp 3 + 2 |x| ulp, division 2.5 ulp, tanh 1e-5 absolute
   * (168 u of float32). It has no erf: people take formula 7.1.26 of Abramowitz and Stegun, 1.5e-7 absolute (2.6 u),
   * whose exp and division lose as much again.
   */
  wgsl: {
    exp: { ulps: 3, slope: 2 },
    tanh: { ulps: 0, absolute: 168 },
    erf: { ulps: 8, absolute: 8 },
    division: { ulps: 2.5 },
  },
} as const satisfies Record<string, Elementary>;

/**
 * Logits, probs, selection and loss are f32 or better in every arithmetic: the name is the experts' format.
 *
 * What is allowed, where honest implementations differ: operands rounded to the format before each product; sums in any
 * order, fused or not, in `accumulator`; pre-activations, hidden activations, the experts' outputs and y each stored in
 * `store`; combine weights rounded to it, and the sum over a token's experts taken in it.
 */
export interface Arithmetic {
  readonly name: ArithmeticName;
  /** What the experts' operands are rounded to before they are multiplied; int8 with scales: see `linearApprox`. */
  readonly operands: FloatFormat | 'int8';
  /** The unit roundoff of the experts' sums. */
  readonly accumulator: number;
  /** What intermediate results may be stored in. */
  readonly store: FloatFormat;
  /** The format of logits, probabilities, selection and loss. */
  readonly router: FloatFormat;
  readonly elementary: Elementary;
}

export interface ArithmeticOptions {
  /** Which library's elementary functions; default `c`. */
  readonly library?: keyof typeof libraries;
  /** Sums taken in a smaller format than float32: f16 tensor cores and some CPU kernels have that. Default: f32, f64 for f64. */
  readonly accumulator?: FloatFormat['name'];
}

/**
 * The usual arithmetic of that name.
 *
 * tf32, f16, bf16: their products are summed in float32 by tensor cores, which truncate: u is 2^-23 instead of 2^-24
 * (M. Fasi, N. Higham, M. Mikaitis and S. Pranesh, Numerical behavior of NVIDIA tensor cores, PeerJ Comput. Sci. 7, 2021).
 * f16 of Inf where a value passes 65504 is no fault of the implementation, but what its format does.
 *
 * @throws TypeError | RangeError for a name, library or accumulator that is none
 */
export function arithmeticNamed(name: ArithmeticName, options: ArithmeticOptions = {}): Arithmetic {
  oneOf('arithmetic', name, ['f64', 'f32', 'tf32', 'f16', 'bf16', 'int8']);
  const { library = 'c', accumulator } = options;
  oneOf('options.library', library, Object.keys(libraries) as (keyof typeof libraries)[]);
  if (accumulator !== undefined)
    oneOf('options.accumulator', accumulator, Object.keys(formats) as FloatFormat['name'][]);
  const sums = formats[accumulator ?? (name === 'f64' ? 'f64' : 'f32')].unitRoundoff;
  const truncates = name === 'tf32' || name === 'f16' || name === 'bf16';
  return {
    name,
    operands: name === 'int8' ? name : name === 'tf32' ? TRUNCATED_TF32 : formats[name],
    accumulator: truncates ? 2 * sums : sums,
    store: name === 'int8' || name === 'tf32' ? formats.f32 : formats[name],
    router: name === 'f64' ? formats.f64 : formats.f32,
    elementary: libraries[library],
  };
}

/** Tensor cores that are given float32 cut its last 13 bits off, unless the kernel rounds them first. */
const TRUNCATED_TF32: FloatFormat = { ...formats.tf32, unitRoundoff: 2 * formats.tf32.unitRoundoff };

/** One unit in the last place of `format` at `value`. */
export function ulpAt(format: FloatFormat, value: number): number {
  const size = Math.max(Math.abs(value), format.smallestNormal);
  return 2 ** Math.floor(Math.log2(size)) * 2 * format.unitRoundoff;
}
