/**
 * Directional derivatives of the training loss by central differences, each with a bound on its error that follows from
 * the sizes of the layer: no tolerance is picked by hand.
 */
import { type Gradients, type Matrix, reference, runLayer, type Trace, type Weights } from 'xmoe';
import { generic, matrixOf, uniform } from 'xmoe/cases';
import type { Layer } from 'xmoe/spec';
import { U } from './close.js';
import {
  expertError,
  plainExpert,
  plainLogits,
  plainPreActivations,
  probabilityError,
  sumOfProducts,
} from './plain.js';
import { rowOf, total } from './tables.js';

/** What the loss depends on: one tensor, or one for each expert. */
export interface Variable {
  readonly name: 'x' | keyof Weights;
  readonly values: readonly Matrix[];
  /** The layer with other values in its place. */
  readonly replaced: (values: readonly Matrix[]) => Layer;
  readonly gradientIn: (gradients: Gradients) => readonly Matrix[];
}

const weightNames = ['router', 'up', 'upBias', 'gate', 'gateBias', 'down', 'downBias'] as const;

/** Every tensor that a layer has. */
export function variablesOf(layer: Layer): Variable[] {
  const x: Variable = {
    name: 'x',
    values: [layer.x],
    replaced: ([other]) => ({ ...layer, x: other }),
    gradientIn: gradients => [gradients.x],
  };
  const present = weightNames.filter(name => layer.weights[name] !== undefined);
  return [
    x,
    ...present.map((name): Variable => {
      const isList = Array.isArray(layer.weights[name]);
      const list = (value: Weights[typeof name]) => (isList ? value : [value]) as readonly Matrix[];
      return {
        name,
        values: list(layer.weights[name]),
        replaced: values => ({ ...layer, weights: { ...layer.weights, [name]: isList ? values : values[0] } }),
        gradientIn: gradients => list(gradients.weights[name]),
      };
    }),
  ];
}

/** Along one direction: what the gradient says, what the differences say, and how far they may be apart. */
export interface Slope {
  readonly ofGradient: number;
  readonly ofDifferences: number;
  readonly allowed: number;
}

const STEP = 2 ** -7;

/**
 * The slope along a random direction, scaled so that a unit step moves no logit and no pre-activation by more than 1;
 * undefined where a step crosses a decision or a kink.
 *
 * Maths   D(h) = (f(h) − f(−h)) / 2h;  R = (64 D(h/4) − 20 D(h/2) + D(h)) / 45 has no h² and h⁴ terms left
 * Error   Truncation: |f⁽⁷⁾|/7! · h⁶/64. Within 1/2 of the real axis f is analytic and below 4 S, where S is f's sum of
 *         absolute values with weights of 1: exponentials grow by at most e^(1/2) there, and no denominator of a
 *         softmax or sigmoid falls below cos ½ of its size. So |f⁽⁷⁾|/7! ≤ 4 S 2⁷, and the error is below 2⁻³⁸ S.
 *         Rounding: that of f, times (64·4 + 20·2 + 1) / 45 h, which is below 2¹⁰.
 */
export function slopeOf(
  layer: Layer,
  { values, replaced, gradientIn }: Variable,
  { trace, gradients }: { readonly trace: Trace; readonly gradients: Gradients },
  seed: number,
): Slope | undefined {
  const raw = values.map((a, e) =>
    matrixOf(a.rows, a.cols, (i, j) => {
      const u = uniform(seed, e, i, j);
      return generic(u) + Math.sign(generic(u)) / 2;
    }),
  );
  const length = 1 / reachOf(layer, replaced(raw));
  const direction = raw.map(v => combination(v, length, v, 0));
  const at = (h: number) => lossAt(replaced(values.map((a, e) => combination(a, 1, direction[e], h))));

  const branch = branchOf(layer, trace);
  const steps = [STEP, STEP / 2, STEP / 4];
  const points: [above: Point, below: Point][] = [];
  for (const h of steps) {
    const both: [Point, Point] = [at(h), at(-h)];
    if (both.some(point => point.branch !== branch)) return undefined;
    points.push(both);
  }
  const [d1, d2, d4] = points.map(([above, below], i) => (above.loss - below.loss) / (2 * steps[i]));

  const widened = replaced(
    values.map((a, e) =>
      matrixOf(a.rows, a.cols, (i, j) => {
        const k = i * a.cols + j;
        return Math.abs(a.data[k]) + Math.abs(direction[e].data[k]);
      }),
    ),
  );
  const gradient = gradientIn(gradients);
  const terms = direction.flatMap((v, e) => Array.from(v.data, (value, i) => value * gradient[e].data[i]));
  const size = sizeOf(widened, trace);
  const slopeRounding = (terms.length + 8) * U * total(terms.map(Math.abs));
  return {
    ofGradient: total(terms),
    ofDifferences: (64 * d4 - 20 * d2 + d1) / 45,
    allowed: size * (2 ** -38 + 2 ** 10 * roundingOf(widened)) + slopeRounding + 2 ** -900,
  };
}

/** a·s + b·h. */
function combination(a: Matrix, s: number, b: Matrix, h: number): Matrix {
  return matrixOf(a.rows, a.cols, (i, j) => s * a.data[i * a.cols + j] + h * b.data[i * a.cols + j]);
}

interface Point {
  readonly loss: number;
  readonly branch: string;
}

/** The loss, and the branch of it. */
function lossAt(layer: Layer): Point {
  const { x, weights, config, inputs, gradY } = layer;
  const trace = runLayer(reference, x, weights, config, inputs);
  const ofY = total(trace.y.data.map((y, i) => y * gradY.data[i]));
  return { loss: ofY + (config.auxLossCoef ?? 0) * trace.loadBalancingLoss, branch: branchOf(layer, trace) };
}

/** Every decision, and which relus are open: on one branch the loss is smooth. */
function branchOf({ config }: Layer, { plan: { selection, kept }, routing, experts }: Trace): string {
  const first = Array.from({ length: routing.probs.rows }, (_, t) => {
    const p = rowOf(routing.probs, t);
    return p.indexOf(Math.max(...p));
  });
  const open = config.activation === 'relu' ? Array.from(experts.hidden.data, h => (h > 0 ? 1 : 0)) : [];
  return [selection.tokenOffsets, selection.expertIndex, kept, first, open].join('|');
}

/** One more than the largest logit or pre-activation, all terms absolute, so that no direction is longer than 1. */
function reachOf(layer: Layer, moved: Layer): number {
  const reach = 1 + Math.max(0, ...magnitudes(moved));
  if (layer.config.activation !== 'gelu_tanh') return reach;
  // its u = √(2/π)(h + 0.044715 h³) moves faster than h: by 1 + 0.134 h²
  return reach * (1 + Math.max(0, ...magnitudes(layer)) ** 2 / 4);
}

function* magnitudes(layer: Layer): Generator<number> {
  for (let t = 0; t < layer.x.rows; t++) {
    for (const { scale } of plainLogits(layer, t)) yield scale;
    for (let e = 0; e < layer.config.numExperts; e++) {
      const { up, gate } = plainPreActivations(rowOf(layer.x, t), layer.weights, e);
      for (const { scale } of [...up, ...(gate ?? [])]) yield scale;
    }
  }
}

/** S: Σ |gradY|·|out| over the kept pairs, everything absolute, and |α|·E. */
function sizeOf({ x, weights, config, gradY }: Layer, { plan }: Trace): number {
  const numSkip = config.skipExpert ? 1 : 0;
  let size = Math.abs(config.auxLossCoef ?? 0) * (config.numExperts + numSkip);
  for (let e = numSkip; e < plan.selection.numExperts; e++) {
    for (const t of plan.tokenIndex.subarray(plan.expertOffsets[e], plan.expertOffsets[e + 1])) {
      size += sumOfProducts(plainExpert(rowOf(x, t), weights, e - numSkip, config), rowOf(gradY, t)).scale;
    }
  }
  return size;
}

/** Of one evaluation of the loss, relative to its size. */
function roundingOf(layer: Layer): number {
  const { x, weights, config } = layer;
  const ofWeights = Array.from({ length: x.rows }, (_, t) => probabilityError(plainLogits(layer, t), x.cols));
  const sums = (2 * config.numExperts + x.rows * x.cols + 8) * U;
  return expertError(weights) + Math.max(0, ...ofWeights) + sums;
}
