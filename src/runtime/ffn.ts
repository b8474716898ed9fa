/** The FFN of a layer for a batch: dense, or of experts. */

import type { Config } from '../types.js';
import type { Step } from '../wasm/drive.js';
import { addAlone, addRows, runRows } from '../wasm/expert-rows.js';
import type { Open } from '../wasm/held.js';
import type { BusyExpert } from '../wasm/open-layer.js';
import { place } from '../wasm/place.js';
import { type FfnMemory, ffnCalls, ffnScratchBytes, rowsFrom, TASK_ROWS } from '../wasm/products.js';
import { type RouterRows, routingIn } from '../wasm/router-rows.js';
import { cut, type Loop, split, type Task } from '../wasm/tasks.js';
import { each } from '../wasm/workspace.js';
import { type Batch, over } from './batch.js';
import type { Ending } from './ending.js';
import type { Experts } from './experts.js';
import { chosenTokens, routedTokens } from './facts.js';
import type { PackedDense, PackedModel, PackedMoe } from './packed-model.js';
import type { RoutedToken } from './types.js';

/** A dense FFN of the normed rows, by rows. */
export function denseLoop(
  model: Open<PackedModel>,
  ffn: PackedDense,
  { numRows, normedCodes }: Batch,
  rows: FfnMemory,
  numThreads: number,
): Loop {
  const { memory, packed } = model;
  const { activation } = packed.config.layer;
  const pieces = cut(numRows, Math.min(TASK_ROWS, Math.ceil(numRows / numThreads)));
  const scratch = each(memory, ffnScratchBytes(ffn), pieces.length);
  const tasks = pieces.map(([first, count], i): Task => {
    const xList = normedCodes.list + 4 * first;
    return ffnCalls(ffn, ffn.weights, count, xList, rowsFrom(rows, first), scratch(i), activation);
  });
  return split(tasks, numRows * ffn.dModel * ffn.dFf);
}

/** What a call says of its XMoE layers. */
export interface RoutedCall {
  /** Theirs, with the router that routes this call. */
  readonly config: Config;
  readonly experts: Experts;
  readonly ending: Ending;
}

/**
 * The experts that the normed rows choose, added up in the batch's y: in groups, as many as can be in memory.
 *
 * @param router of this layer, whose loop is done
 * @returns what was decided on each byte
 */
export function* moeSteps(
  model: Open<PackedModel>,
  ffn: PackedMoe,
  batch: Batch,
  router: RouterRows,
  { config, experts, ending }: RoutedCall,
): Generator<Step, RoutedToken[], void> {
  const { memory } = model;
  const layer = over(model, ffn);
  const rows = { numTokens: batch.numRows, x: batch.normedCodes, y: batch.y };
  const { busy, xList, sums, choices, plan } = place(layer, router, rows, {}, config);
  const routed = choices
    ? chosenTokens(memory, choices, batch.numRows)
    : routedTokens(routingIn(layer, router, batch.numRows).probs, plan(), config);
  const groupStart = memory.end;
  for (const group of inGroups(busy, experts.most)) {
    const indices = group.map(({ index }) => index);
    const coming = experts.bring(model, ffn, indices, ending);
    if (coming) yield coming;
    memory.release(groupStart);
    if (batch.experts) yield* addAlone(layer, xList, group, batch.experts, sums, config);
    else {
      const last = group[group.length - 1];
      const range = { first: group[0].first, end: last.first + last.numGiven };
      const { out } = yield* runRows(layer, xList, group, range, config);
      yield* addRows(sums, out.list, range);
    }
  }
  return routed;
}

function inGroups(busy: readonly BusyExpert[], most: number): (readonly BusyExpert[])[] {
  if (busy.length <= most) return busy.length > 0 ? [busy] : [];
  return cut(busy.length, most).map(([first, count]) => busy.slice(first, first + count));
}
