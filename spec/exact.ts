/**
 * Functions of a real argument in BigInt fixed point: the number v is the bigint v · 2^bits. Power series alone, with so
 * many bits that their cancellation does not matter: what float64 results are measured against.
 */

export interface FixedPoint {
  /** A float64, exactly. */
  of(x: number): bigint;
  mul(a: bigint, b: bigint): bigint;
  div(a: bigint, b: bigint): bigint;
  exp(a: bigint): bigint;
  erf(a: bigint): bigint;
  /** The normal distribution, ½(1 + erf(a/√2)). */
  normal(a: bigint): bigint;
  /** |y − exact| in units in the last place that a float64 of the size of `scale` has. */
  ulps(y: number, exact: bigint, scale: bigint): number;
}

const made = new Map<number, FixedPoint>();

/** Fixed point with 300 bits to spare for results down to e^(−size), by series with terms up to e^size. */
export function fixedPoint(size: number): FixedPoint {
  const bits = 1400 + 512 * Math.ceil((2 * size) / 512);
  const arithmetic = made.get(bits) ?? make(bits);
  made.set(bits, arithmetic);
  return arithmetic;
}

function make(bits: number): FixedPoint {
  const width = BigInt(bits);
  const one = 1n << width;
  const mul = (a: bigint, b: bigint) => (a * b) >> width;
  const div = (a: bigint, b: bigint) => (a << width) / b;
  const sqrt = (a: bigint) => integerSqrt(a << width);
  const pi = 4n * (4n * arctanOfInverse(5n, one) - arctanOfInverse(239n, one)); // Machin's formula

  /** Σ_n (−q)ⁿ / (n! (2n + 1)), which is erf(x) √π / 2x for q = x². */
  function series(q: bigint): bigint {
    let [term, sum] = [one, one];
    for (let n = 1n; term !== 0n; n++) {
      term = -mul(term, q) / n;
      sum += term / (2n * n + 1n);
    }
    return sum;
  }

  /** e^a = (e^(a / 2^64))^(2^64), with 128 bits more, of which the 64 squarings lose half. */
  function exp(a: bigint): bigint {
    const wide = width + 128n;
    const small = a << 64n;
    let [term, sum] = [1n << wide, 1n << wide];
    for (let n = 1n; term !== 0n; n++) {
      term = (term * small) / (n << wide);
      sum += term;
    }
    for (let i = 0; i < 64; i++) sum = (sum * sum) >> wide;
    return sum >> 128n;
  }

  function of(x: number): bigint {
    const [significand, exponent] = parts(x);
    return significand << BigInt(bits + exponent);
  }

  return {
    of,
    mul,
    div,
    exp,
    erf: a => div(2n * mul(a, series(mul(a, a))), sqrt(pi)),
    normal: a => one / 2n + div(mul(a, series(mul(a, a) / 2n)), sqrt(2n * pi)),
    ulps(y, exact, scale) {
      const lastPlace = Math.max(magnitude(scale).toString(2).length - 53, bits - 1074);
      const difference = magnitude(of(y) - exact);
      return Number((difference << 20n) >> BigInt(lastPlace)) / 2 ** 20;
    },
  };
}

export function magnitude(a: bigint): bigint {
  return a < 0n ? -a : a;
}

/** x as significand · 2^exponent, exponent ≥ −1074. */
function parts(x: number): [significand: bigint, exponent: number] {
  const word = new BigUint64Array(Float64Array.of(x).buffer)[0];
  const biased = Number((word >> 52n) & 0x7ffn);
  const fraction = word & 0xfffffffffffffn;
  const size = biased === 0 ? fraction : fraction + (1n << 52n);
  return [x < 0 ? -size : size, Math.max(biased, 1) - 1075];
}

/** arctan(1/k), times `one`. */
function arctanOfInverse(k: bigint, one: bigint): bigint {
  let [power, sum] = [one / k, 0n];
  for (let n = 1n; power !== 0n; n += 2n) {
    sum += n % 4n === 1n ? power / n : -power / n;
    power /= k * k;
  }
  return sum;
}

/** ⌊√a⌋, by Newton's method from above. */
function integerSqrt(a: bigint): bigint {
  let root = 1n << BigInt(Math.ceil(a.toString(2).length / 2));
  for (;;) {
    const next = (root + a / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}
