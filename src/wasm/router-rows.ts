/** The router of a call: logits and probabilities in its memory. */
import type { Matrix, Routing } from '../types.js';
import type { OpenLayer } from './open-layer.js';
import type { PackedWeights } from './packed-weights.js';
import { codeBytes } from './products.js';
import { cut, type Loop, split, type Task } from './tasks.js';
import { each, put, type Rows } from './workspace.js';

/** At most so many rows for a task of the router: whole tiles. */
const ROUTER_ROWS = 24;

/** Begins a call: x in memory, and room for its codes, for the routing, and for what each token chooses. */
export function beginWith(layer: OpenLayer, x: Matrix): Rows {
  const { memory, packed } = layer;
  memory.begin();
  const scratch = Math.ceil(x.rows / ROUTER_ROWS) * routeScratch(packed);
  const perToken = codeBytes(packed, x.cols) + 4 * x.cols + 16 * packed.numLogits + 12;
  memory.reserve(x.rows * perToken + scratch);
  return { ptr: put(layer, x), stride: x.cols };
}

/** Where logits and probabilities are, [T, E], once the loop is done. */
export interface RouterRows {
  readonly logits: number;
  readonly probs: number;
  readonly loop: Loop;
}

/** By tokens. */
export function routerRows(layer: OpenLayer, x: Rows, numTokens: number): RouterRows {
  const { memory, packed } = layer;
  const { dModel, numLogits, routerPtr } = packed;
  const [logitsPtr, probsPtr] = [1, 2].map(() => memory.allocate(4 * numTokens * numLogits));
  const pieces = numLogits > 0 ? cut(numTokens, ROUTER_ROWS) : [];
  const scratch = each(memory, routeScratch(packed), pieces.length);
  const tasks = pieces.map(([first, count], i): Task => {
    const [logits, probs] = [logitsPtr, probsPtr].map(ptr => ptr + 4 * first * numLogits);
    const xPtr = x.ptr + 4 * first * x.stride;
    return [
      ['route_f32', xPtr, routerPtr, logits, scratch(i), count, dModel, numLogits, routeTokens(packed)],
      ['softmax_f32', logits, probs, count, numLogits],
    ];
  });
  return { logits: logitsPtr, probs: probsPtr, loop: split(tasks, numTokens * numLogits * dModel) };
}

/** Views of memory, good until something is allocated. */
export function routingIn({ memory, packed }: OpenLayer, { logits, probs }: RouterRows, numTokens: number): Routing {
  const { numLogits } = packed;
  const view = (ptr: number) => ({ rows: numTokens, cols: numLogits, data: memory.floats(ptr, numTokens * numLogits) });
  return { logits: view(logits), probs: view(probs) };
}

/** Bytes that `route_f32` needs beside its arguments. */
function routeScratch({ dModel }: PackedWeights): number {
  return 32 * dModel + 256;
}

/** Tokens that its tiles hold. */
function routeTokens({ set }: PackedWeights): number {
  return set.panelWidth === 16 ? 4 : 2;
}
