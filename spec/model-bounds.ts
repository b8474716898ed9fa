/**
 * How far the float32 kernels of the language model may be from float64, element by element: a running error analysis from
 * the magnitudes of what is added (N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2002, chapter 3), with
 * the rounding errors that the kernels' doc comments name. U is what one rounding may be off by, relative to its result; a
 * factor of 1.01 or a 1.02 stands for what is of second order.
 */
const U = 2 ** -24;
/** Below float32's smallest number: a rounding to a subnormal is off by at most half of it. */
const TINY = 2 ** -149;
/** Magnitudes below count as this, and so cover products that underflow. */
const LEAST = 2 ** -60;

/**
 * LayerNorm of one row, in assembly/norm.ts. x is exact.
 *
 * n = (x - mean) s, s = 1 / √(variance + eps), is of float64, here and there: that gives each mean an error of at most
 * δ = (d + 3) 2^-53 mean|x|, each variance δ² and (d + 8) 2^-53 of its size (its terms are squares about the mean that was
 * found), s half of that with three roundings, and n an error of δ s + |n| (…). Then n is rounded to float32; its product
 * with the weight, and the sum with the bias, too.
 *
 * @returns what element c may be off by, from its exact y
 */
export function normBound(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  eps: number,
): (c: number, y: number) => number {
  const values = Array.from(x);
  const d = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / d;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / d + eps;
  const scale = 1 / Math.sqrt(variance);
  const ofMean = 2 * (d + 3) * 2 ** -53 * (values.reduce((sum, value) => sum + Math.abs(value), 0) / d);
  const ofScale = 2 * (d + 16) * 2 ** -53 + ofMean ** 2 / variance;
  return (c, y) => {
    const size = Math.abs(values[c] - mean) * scale;
    const ofNormalised = size * (ofScale + U) + ofMean * scale + TINY;
    return 1.01 * (Math.abs(weight[c]) * (ofNormalised + size * U) + Math.abs(y) * U) + TINY;
  };
}

/**
 * One row of one head of `attend_f32`, in assembly/attention.ts.
 *
 * A product ⟨q, k[j]⟩ is a chain of w products and sums: off by at most E[j] = (w + 2) U Σ |q| |k[j]|. The exponent
 * d[j] = (product - largest) / √w takes three roundings more, of a difference, of 1 / √w and of their product. The largest is
 * taken from all of them, which changes no p; so exponents are off by at most η[j] = E[j] / √w + 3.1 U |d[j]|.
 * p[j] = e^d[j] / Σ e^d then is off by a factor from e^-(η[j] + H) to e^(η[j] + H), H = ln Σ p e^η: the mean of e^η is the
 * most that the sum may grow by, and its inverse, by the inequality of means, the least that it may shrink to. Other factors: 1.01 ulp
 * for e^d, at most 2.02 U, again in the sum, where two are added in float32; one rounding of 1 / sum and one of p; the float64 sum's. What is clamped at
 * e^-104, or is subnormal, is off by TINY. y is a chain of products and sums of the n values. And y is a mean of the
 * values, whatever the p: where products are so large that nothing is known of them, it is within twice the largest value.
 *
 * @param keys of the positions that the row sees
 * @returns what column c may be off by
 */
export function attendBound(
  q: ArrayLike<number>,
  keys: readonly ArrayLike<number>[],
  values: readonly ArrayLike<number>[],
): (c: number) => number {
  const [width, n] = [q.length, keys.length];
  const scale = 1 / Math.sqrt(width);
  const sizeOf = (a: number) => Math.max(Math.abs(a), LEAST);
  const exponents = keys.map(key => scale * total(width, c => q[c] * key[c]));
  const largest = exponents.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const logSum = largest + Math.log(total(n, j => Math.exp(exponents[j] - largest)));
  const eta = keys.map((key, j) => {
    const ofProduct = (width + 2) * U * total(width, c => sizeOf(q[c]) * sizeOf(key[c]));
    return 1.01 * (ofProduct * scale + 3.1 * U * (largest - exponents[j] + ofProduct * scale));
  });
  const ofSum = Math.log(total(n, j => Math.exp(exponents[j] - logSum + eta[j])));
  const factors = (1 + 7.2 * U + n * 2 ** -50) * (1 + (n + 2) * 1.01 * U);
  return c => {
    const grown = total(n, j => {
      const [logP, size] = [exponents[j] - logSum, Math.abs(values[j][c])];
      return size * (Math.exp(logP + eta[j] + ofSum) * factors - Math.exp(logP)) + 2 * TINY * (1 + size);
    });
    const mean = 2.02 * keys.reduce((most, _, j) => Math.max(most, Math.abs(values[j][c])), 0) + 2 * n * TINY;
    return grown < mean ? grown : mean;
  };
}

function total(count: number, term: (i: number) => number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += term(i);
  return sum;
}
