/** The layer in loops of tasks, for one thread or many, with decisions in between: the bits of `layerAlone`. */
import type { Config, Matrix, RoutingInputs } from '../types.js';
import { addRows, piecesOf, runRows } from './expert-rows.js';
import type { LayerResult, OpenLayer } from './open-layer.js';
import { type Placed, place } from './place.js';
import { encodeLoop, reserve } from './products.js';
import { beginWith, routerRows } from './router-rows.js';
import type { Loop } from './tasks.js';
import { take } from './workspace.js';

/**
 * One call. A row's bits depend neither on the rows beside it nor on the columns, so where loops are cut is a matter of
 * time alone; and in each column of y the experts are added in order, by whoever has that column.
 *
 * @throws as `layerAlone` does
 */
export function* layerLoops(
  layer: OpenLayer,
  x: Matrix,
  inputs: RoutingInputs,
  config: Config,
): Generator<Loop, LayerResult, void> {
  const { busy, numRows, xList, sums, plan } = yield* decide(layer, x, inputs, config);
  const range = { first: busy[0]?.first ?? numRows, end: numRows };
  reserve(layer, range.end - range.first, piecesOf(busy).length);
  const { out } = yield* runRows(layer, xList, busy, range, config);
  yield* addRows(sums, out.list, range);
  return { y: take(layer, sums.y.ptr, x.rows, x.cols, sums.y.stride), plan };
}

/** Begins a call with the router and the decisions. @throws as `layerAlone` does */
export function* decide(
  layer: OpenLayer,
  x: Matrix,
  inputs: RoutingInputs,
  config: Config,
): Generator<Loop, Placed, void> {
  const given = beginWith(layer, x);
  const router = routerRows(layer, given, x.rows);
  yield router.loop;
  const encoded = yield* encodeLoop(layer, given, x.rows, x.cols);
  return place(layer, router, { numTokens: x.rows, x: encoded }, inputs, config);
}
