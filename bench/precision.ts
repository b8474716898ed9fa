/** What weights are stored in, and how far from the reference that may put y at most. */
import { type Floats, linear, type Matrix } from 'xmoe';
import { gatherExpert } from './contenders/rows.js';
import type { Layer } from './layers.js';

/** Of experts' weights: float32; half of it, in two ways; integers with a scale for each output, which take integers of x. */
export type Precision = 'f32' | 'f16' | 'bf16' | 'int8';

export const bytesPerWeight: Readonly<Record<Precision, number>> = { f32: 4, f16: 2, bf16: 2, int8: 1 };

/** How far the stored weight of an output may be from the one that was given, element by element. */
const storing: Readonly<Record<Exclude<Precision, 'f32'>, (w: Floats) => Floats>> = {
  f16: w => w.map((value: number) => Math.max(Math.abs(value) * 2 ** -11, 2 ** -25)),
  bf16: w => w.map((value: number) => Math.abs(value) * 2 ** -8),
  int8: w => w.slice().fill(largest(w) / 254), // half a step of 1/127 of the largest
};

const known = new WeakMap<Layer, Map<string, Floats>>();

/**
 * An absolute error for each element of y at a step of a layer (relu, no biases): the largest that errors of storing may
 * add up to, whatever their signs, besides that of float32 arithmetic.
 *
 * Maths   x' = x + ε, |ε| ≤ a, and w' = w + η, |η| ≤ s: |x'w' - xw| ≤ Σ |x| s + a (|w| + s), for both products
 */
export function boundOf(layer: Layer, step: number, precision: Precision): Floats {
  if (precision === 'f32') return layer.steps[step].bound;
  const bounds = known.get(layer) ?? new Map<string, Floats>();
  known.set(layer, bounds);
  const key = `${step} ${precision}`;
  const bound = bounds.get(key) ?? storedBound(layer, step, precision);
  bounds.set(key, bound);
  return bound;
}

function storedBound({ steps, weights, shape }: Layer, step: number, precision: Exclude<Precision, 'f32'>): Floats {
  const { x, plan, bound } = steps[step];
  // Twice that of float32, whose sums are now of other numbers, which are nearly as large.
  const y = Float64Array.from(bound, value => 2 * value);
  for (let e = 0; e < shape.numExperts; e++) {
    const given = gatherExpert(x, plan, e);
    if (given.rows === 0) continue;
    const [up, down] = [weights.up[e], weights.down[e]];
    const hidden = positive(linear(given, up));
    const hiddenError = productError(given, rowErrors(given, precision), up, precision);
    const reached = { ...hidden, data: hidden.data.map((h, i) => h + hiddenError.data[i]) };
    const rounding = rowErrors(reached, precision);
    const error = { ...hidden, data: hiddenError.data.map((h, i) => h + rounding.data[i]) };
    const outError = productError(hidden, error, down, precision);
    for (let i = 0; i < given.rows; i++) {
      const row = plan.expertOffsets[e] + i;
      const [into, weight] = [plan.tokenIndex[row] * shape.dModel, plan.combineWeight[row]];
      for (let c = 0; c < shape.dModel; c++) y[into + c] += weight * outError.data[i * shape.dModel + c];
    }
  }
  return y;
}

/** Σ |x| s + a (|w| + s), where a is the error of x and s that of storing w. */
function productError(x: Matrix, error: Matrix, w: Matrix, precision: Exclude<Precision, 'f32'>): Matrix {
  const stored = Float64Array.from(w.data);
  for (let j = 0; j < w.rows; j++) {
    const row = stored.subarray(j * w.cols, (j + 1) * w.cols);
    row.set(storing[precision](row));
  }
  const ofWeights = linear(absolute(x), { ...w, data: stored });
  const ofInputs = linear(error, { ...w, data: stored.map((s, i) => s + Math.abs(w.data[i])) });
  return { ...ofWeights, data: ofWeights.data.map((value: number, i: number) => value + ofInputs.data[i]) };
}

/** What int8 does to a row of inputs: a step is 1/127 of its range, 0 included, and at an end it may be missed by a whole one. */
function rowErrors(x: Matrix, precision: Precision): Matrix {
  const data = new Float64Array(x.data.length);
  if (precision !== 'int8') return { ...x, data };
  for (let i = 0; i < x.rows; i++) {
    const row = x.data.subarray(i * x.cols, (i + 1) * x.cols);
    const range = Math.max(0, ...row) - Math.min(0, ...row);
    data.fill(range / 127, i * x.cols, (i + 1) * x.cols);
  }
  return { ...x, data };
}

function largest(values: Floats): number {
  return Math.max(...values.map(Math.abs));
}

function absolute(a: Matrix): Matrix {
  return { ...a, data: Float64Array.from(a.data, Math.abs) };
}

function positive(a: Matrix): Matrix {
  return { ...a, data: Float64Array.from(a.data, value => Math.max(value, 0)) };
}
