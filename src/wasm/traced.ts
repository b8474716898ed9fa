/** The stages of a trace, each a computation of its own: the loops of the fused call, and copies of what they leave. */
import type { Config, DispatchPlan, ExpertRows, Matrix, Routing } from '../types.js';
import { addRows, giveRows, newSums, piecesOf, runRows } from './expert-rows.js';
import { busyExperts, type LayerComputation } from './open-layer.js';
import { runAlone } from './pool.js';
import { reserve } from './products.js';
import { beginWith, routerRows, routingIn } from './router-rows.js';
import { putRows, take, type Workspace } from './workspace.js';

export function route(x: Matrix): LayerComputation<Routing> {
  return function* (layer) {
    const router = routerRows(layer, beginWith(layer, x), x.rows);
    yield router.loop;
    const { logits, probs } = routingIn(layer, router, x.rows);
    return { logits: { ...logits, data: logits.data.slice() }, probs: { ...probs, data: probs.data.slice() } };
  };
}

export function runExperts(x: Matrix, plan: DispatchPlan, config: Config): LayerComputation<ExpertRows> {
  return function* (layer) {
    const { dModel, dFf } = layer.packed;
    const given = beginWith(layer, x);
    const numRows = plan.tokenIndex.length;
    const busy = busyExperts(plan.expertOffsets, layer.packed);
    reserve(layer, numRows, piecesOf(busy).length);
    const xList = yield* giveRows(layer, given, plan);
    const { hidden, out } = yield* runRows(layer, xList, busy, { first: 0, end: numRows }, config);
    return {
      hidden: take(layer, hidden.ptr, numRows, dFf, hidden.stride),
      out: take(layer, out.ptr, numRows, dModel, out.stride),
    };
  };
}

/** Needs no weights, and little time: the calling thread does it. */
export function combine(space: Workspace, expertOut: Matrix, plan: DispatchPlan): Matrix {
  space.memory.begin();
  const out = putRows(space, expertOut);
  const sums = newSums(space, expertOut.cols, plan);
  runAlone({ space, loops: addRows(sums, out.list, { first: 0, end: plan.tokenIndex.length }) });
  return take(space, sums.y.ptr, plan.selection.numTokens, expertOut.cols, sums.y.stride);
}
