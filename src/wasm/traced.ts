/** The stages of a trace, each a computation of its own: the loops of the fused call, and copies of what they leave. */
import type { Config, DispatchPlan, ExpertRows, Matrix, Routing } from '../types.js';
import type { Computation } from './held-layer.js';
import { beginWith, combineLoop, expertLoops, routeLoop } from './layer-loops.js';
import { runAlone } from './pool.js';
import { begin, putRows, take, type Workspace } from './workspace.js';

export function route(x: Matrix): Computation<Routing> {
  return function* (layer) {
    const { logits, probs } = yield* routeLoop(layer, beginWith(layer, x), x.rows);
    return { logits: { ...logits, data: logits.data.slice() }, probs: { ...probs, data: probs.data.slice() } };
  };
}

export function runExperts(x: Matrix, plan: DispatchPlan, config: Config): Computation<ExpertRows> {
  return function* (layer) {
    const { dModel, dFf } = layer.packed;
    const { hidden, out } = yield* expertLoops(layer, beginWith(layer, x), plan, config);
    const numRows = plan.tokenIndex.length;
    return {
      hidden: take(layer, hidden.ptr, numRows, dFf, hidden.stride),
      out: take(layer, out.ptr, numRows, dModel, out.stride),
    };
  };
}

/** Needs no weights, and little time: the calling thread does it. */
export function combine(space: Workspace, expertOut: Matrix, plan: DispatchPlan): Matrix {
  begin(space);
  const out = putRows(space, expertOut);
  const { numTokens } = plan.selection;
  const y = runAlone({ space, loops: combineLoop(space, out.list, expertOut.cols, plan) });
  return take(space, y.ptr, numTokens, expertOut.cols, y.stride);
}
