/** What weights are stored in, and how far from the reference that may put y. */
import { type Floats, linear, type Matrix } from 'xmoe';
import { gatherExpert } from './contenders/rows.js';
import type { Layer } from './layers.js';

/** Of experts' weights: float32; half of it, in two ways; integers with a scale for each output, which take integers of x. */
export type Precision = 'f32' | 'f16' | 'bf16' | 'int8';
type Stored = Exclude<Precision, 'f32'>;

export const bytesPerWeight: Readonly<Record<Precision, number>> = { f32: 4, f16: 2, bf16: 2, int8: 1 };

/** The most that storing may change a weight by, of those of one output. */
const storing: Readonly<Record<Stored, (w: Floats) => Floats>> = {
  f16: w => w.map((value: number) => Math.max(Math.abs(value) * 2 ** -11, 2 ** -25)),
  bf16: w => w.map((value: number) => Math.abs(value) * 2 ** -8),
  int8: w => w.slice().fill(Math.max(...w.map(Math.abs)) / 254), // half a step of 1/127 of the largest
};

/** Standard deviations that a y may be off by: a normal one is farther once in 10^15. */
const DEVIATIONS = 8;

const known = new WeakMap<Layer, Map<string, Floats>>();

/**
 * An absolute error for each element of y at a step of a layer (relu, no biases): of float32 arithmetic what is bound to
 * hold; of storing, beside that, what the sums of so many independent errors stay within. The largest that they might add
 * up to would be larger than y itself, and find nothing.
 *
 * Maths   an error that is anywhere within ±a has the variance a²/3; with errors ε of x and η of w,
 *         Var(Σ (x + ε)(w + η)) = Σ x² Var η + Var ε (w² + Var η), for both products; relu enlarges none
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

function storedBound({ steps, weights, shape }: Layer, step: number, precision: Stored): Floats {
  const { x, plan, bound } = steps[step];
  const variance = new Float64Array(bound.length);
  for (let e = 0; e < shape.numExperts; e++) {
    const given = gatherExpert(x, plan, e);
    if (given.rows === 0) continue;
    const hidden = linear(given, weights.up[e]);
    hidden.data.forEach((h: number, i: number) => {
      hidden.data[i] = Math.max(h, 0);
    });
    const ofHidden = productVariance(given, inputVariance(given, precision), weights.up[e], precision);
    const ofCodes = inputVariance(hidden, precision);
    const input = { ...hidden, data: ofCodes.data.map((v: number, i: number) => v + ofHidden.data[i]) };
    const ofOut = productVariance(hidden, input, weights.down[e], precision);
    for (let i = 0; i < given.rows; i++) {
      const row = plan.expertOffsets[e] + i;
      const [into, weight] = [plan.tokenIndex[row] * shape.dModel, plan.combineWeight[row]];
      for (let c = 0; c < shape.dModel; c++) variance[into + c] += weight ** 2 * ofOut.data[i * shape.dModel + c];
    }
  }
  return variance.map((v, i) => bound[i] + DEVIATIONS * Math.sqrt(v));
}

/** Σ x² Var η + Var ε (w² + Var η), where η is the error of storing w. */
function productVariance(x: Matrix, ofX: Matrix, w: Matrix, precision: Stored): Matrix {
  const ofW = Float64Array.from(w.data);
  for (let j = 0; j < w.rows; j++) {
    const row = ofW.subarray(j * w.cols, (j + 1) * w.cols);
    row.set(storing[precision](row).map((most: number) => most ** 2 / 3));
  }
  const squares = { ...w, data: ofW.map((v, i) => v + w.data[i] ** 2) };
  const ofInputs = linear(ofX, squares);
  const ofWeights = linear({ ...x, data: Float64Array.from(x.data, value => value ** 2) }, { ...w, data: ofW });
  return { ...ofInputs, data: ofWeights.data.map((v: number, i: number) => v + ofInputs.data[i]) };
}

/** What int8 does to the inputs of a row: half a step of 1/127 of its range, 0 included. */
function inputVariance(x: Matrix, precision: Stored): Matrix {
  const data = new Float64Array(x.data.length);
  if (precision !== 'int8') return { ...x, data };
  for (let i = 0; i < x.rows; i++) {
    const row = x.data.subarray(i * x.cols, (i + 1) * x.cols);
    const step = (Math.max(0, ...row) - Math.min(0, ...row)) / 127;
    data.fill((step / 2) ** 2 / 3, i * x.cols, (i + 1) * x.cols);
  }
  return { ...x, data };
}
