/**
 * The error function to float64 accuracy, for every real argument.
 *
 *   erf(x)   = (2/√π) ∫₀ˣ e^(−t²) dt
 *   erfc(x)  = 1 − erf(x), with full relative accuracy where that difference would cancel
 *   erfcx(x) = e^(x²) erfc(x), with full relative accuracy where erfc underflows
 *
 * Two formulas cover the line, and neither cancels: the Taylor series of erf near 0, and from ¾ on a trapezoidal sum
 * for erfcx, exact to rounding after 16 terms. Unlike tables of fitted coefficients, each number here can be derived.
 */

const TAIL_START = 0.75;

/** Error: at most 2 ulp. */
export function erf(x: number): number {
  if (Math.abs(x) < TAIL_START) return x + x * taylor(x * x);
  return Math.sign(x) * (1 - erfc(Math.abs(x)));
}

/** Error: at most 4 ulp, in the tail and through underflow (x from 26.5 to 27.2) too. */
export function erfc(x: number): number {
  if (x < TAIL_START) return 1 - erf(x);
  return expOfSquare(-1, x) * erfcx(x);
}

// cₙ = (2/√π) (−1)ⁿ / (n! (2n + 1)), up to the last that counts at x = ¾; one less for c₀, which saves half an ulp
const TAYLOR = [2 / Math.sqrt(Math.PI)];
for (let n = 1; n < 17; n++) TAYLOR[n] = (TAYLOR[n - 1] * (1 - 2 * n)) / (n * (2 * n + 1));
TAYLOR[0] = 0.12837916709551256; // 2/√π − 1

/** erf(x) / x − 1, a series in x², for |x| < ¾. */
function taylor(x2: number): number {
  let sum = 0;
  for (let n = TAYLOR.length - 1; n >= 0; n--) sum = sum * x2 + TAYLOR[n];
  return sum;
}

// at the nodes tₖ = k π/8, k = 1 … 16 (beyond, the weight is below 1e-19): tₖ² and (2/π) (π/8) tₖ² e^(−tₖ²)
const NODE_SQUARED = Array.from({ length: 16 }, (_, i) => (((i + 1) * Math.PI) / 8) ** 2);
const WEIGHT = NODE_SQUARED.map(t2 => (t2 * Math.exp(-t2)) / 4);
const INV_SQRT_PI = 1 / Math.sqrt(Math.PI);

/**
 * e^(x²) erfc(x), for x ≥ ½.
 *
 * Maths   erfcx(x) = (2x/π) ∫₀^∞ e^(−t²) / (x² + t²) dt = (1/√π − (2/π) ∫₀^∞ t² e^(−t²) / (x² + t²) dt) / x.
 *         The trapezoidal rule of step s is off by the residue at the pole t = ix, if x < π/s, and by e^(−(π/s)²):
 *         e^(−64) for s = π/8. The residue, 2 e^(x²) / (e^(2πx/s) − 1), is taken away.
 * Error   at most 3 ulp
 * Source  E. T. Goodwin, Proc. Camb. Phil. Soc. 45 (1949); F. Matta and A. Reichel, Math. Comp. 25 (1971)
 */
export function erfcx(x: number): number {
  const x2 = x * x;
  // x times the residue, first as it is the least; from 4 on it is below 1e-18 of the sum
  let sum = x < 4 ? (2 * x * Math.exp(x2)) / Math.expm1(16 * x) : 0;
  for (let i = WEIGHT.length - 1; i >= 0; i--) sum += WEIGHT[i] / (x2 + NODE_SQUARED[i]);
  return (INV_SQRT_PI - sum) / x;
}

/**
 * e^(c x²), for c = −1 or −½. Where the exponent is −700, one rounding of x² would cost hundreds of ulp. So x is split
 * in a head of 24 bits, whose square is exact, and a rest: x² = head² + rest (x + head).
 */
export function expOfSquare(c: number, x: number): number {
  const near = Math.min(Math.abs(x), 64); // the result is 0 from here on, and x² overflows later
  const head = Math.fround(near);
  const e = Math.exp(c * head * head);
  return e + e * Math.expm1(c * (near - head) * (near + head));
}
