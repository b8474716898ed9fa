/** The reference rounded to float32 after every stage: what an honest f32 backend gives, and its seam in twenty lines. */
import { reference } from './moe.js';
import { softmax } from './router.js';
import type { Backend, Matrix } from './types.js';

export const referenceF32: Backend = {
  name: 'reference-f32',
  precision: 'f32',
  route(x, weights) {
    const logits = round(reference.route(x, weights).logits);
    return { logits, probs: round(softmax(logits)) };
  },
  dispatch(routing, inputs, config) {
    const plan = reference.dispatch(routing, inputs, config);
    return { ...plan, combineWeight: Float32Array.from(plan.combineWeight) };
  },
  runExperts(x, plan, weights, config) {
    const { hidden, out } = reference.runExperts(x, plan, weights, config);
    return { hidden: round(hidden), out: round(out) };
  },
  combine: (expertOut, plan) => round(reference.combine(expertOut, plan)),
};

function round(a: Matrix): Matrix {
  return { ...a, data: Float32Array.from(a.data) };
}
