/** A call with a part of its tokens, experts, hidden units or columns: the rest is cut out, nothing is computed anew. */
import type { Matrix, Weights } from '../../types.js';
import type { LayerCall } from '../types.js';

/** The tokens listed, in that order. */
export function withTokens(call: LayerCall, tokens: readonly number[]): LayerCall {
  const { x, inputs, gradY } = call;
  const { noise, tokenIds, tokenMask } = inputs;
  return {
    ...call,
    x: part(x, tokens),
    inputs: {
      ...inputs,
      ...(noise && { noise: part(noise, tokens) }),
      ...(tokenIds && { tokenIds: Int32Array.from(tokens, t => tokenIds[t]) }),
      ...(tokenMask && { tokenMask: Uint8Array.from(tokens, t => tokenMask[t]) }),
    },
    ...(gradY && { gradY: part(gradY, tokens) }),
  };
}

/** The experts listed; a skip expert stays. What a hash table sent to an expert cut out goes to the first that is left. */
export function withExperts(call: LayerCall, experts: readonly number[]): LayerCall {
  const columns = call.config.skipExpert ? [0, ...experts.map(e => e + 1)] : experts;
  const { router, up, upBias, gate, gateBias, down, downBias } = call.weights;
  return withColumns(call, columns, {
    router,
    up: experts.map(e => up[e]),
    down: experts.map(e => down[e]),
    ...(upBias && { upBias: part(upBias, experts) }),
    ...(gate && { gate: experts.map(e => gate[e]) }),
    ...(gateBias && { gateBias: part(gateBias, experts) }),
    ...(downBias && { downBias: part(downBias, experts) }),
  });
}

/** The same experts, without the skip expert. */
export function withoutSkipExpert(call: LayerCall): LayerCall {
  const { skipExpert, ...config } = call.config;
  const columns = call.weights.up.map((_, e) => e + 1);
  return withColumns({ ...call, config }, columns, call.weights);
}

/** The columns of x listed: of d. */
export function withWidth(call: LayerCall, columns: readonly number[]): LayerCall {
  const { router, up, gate, down, downBias } = call.weights;
  const inCols = (a: Matrix) => part(a, undefined, columns);
  return {
    ...call,
    x: inCols(call.x),
    weights: {
      ...call.weights,
      router: inCols(router),
      up: up.map(inCols),
      ...(gate && { gate: gate.map(inCols) }),
      down: down.map(a => part(a, columns)),
      ...(downBias && { downBias: inCols(downBias) }),
    },
    ...(call.gradY && { gradY: inCols(call.gradY) }),
  };
}

/** The hidden units listed, in every expert: of m. */
export function withHidden(call: LayerCall, units: readonly number[]): LayerCall {
  const { up, upBias, gate, gateBias, down } = call.weights;
  return {
    ...call,
    weights: {
      ...call.weights,
      up: up.map(a => part(a, units)),
      ...(upBias && { upBias: part(upBias, undefined, units) }),
      ...(gate && { gate: gate.map(a => part(a, units)) }),
      ...(gateBias && { gateBias: part(gateBias, undefined, units) }),
      down: down.map(a => part(a, undefined, units)),
    },
  };
}

/** The columns of logits listed, and the weights of the experts among them. */
function withColumns(call: LayerCall, columns: readonly number[], weights: Weights): LayerCall {
  const { config, inputs } = call;
  const { noise, hashTable } = inputs;
  const { topK } = config;
  return {
    ...call,
    config: {
      ...config,
      numExperts: weights.up.length,
      ...(topK !== undefined && { topK: Math.min(topK, columns.length) }),
    },
    weights: { ...weights, router: weights.router.rows === 0 ? weights.router : part(weights.router, columns) },
    inputs: {
      ...inputs,
      ...(noise && { noise: part(noise, undefined, columns) }),
      ...(hashTable && { hashTable: hashTable.map(column => Math.max(0, columns.indexOf(column))) }),
    },
  };
}

/** The rows and columns listed, in that order; all where none are. */
function part(a: Matrix, rows?: readonly number[], columns?: readonly number[]): Matrix {
  const rowIndex = rows ?? Array.from({ length: a.rows }, (_, i) => i);
  const colIndex = columns ?? Array.from({ length: a.cols }, (_, j) => j);
  const data = new (a.data.constructor as Float64ArrayConstructor)(rowIndex.length * colIndex.length);
  let at = 0;
  for (const i of rowIndex) for (const j of colIndex) data[at++] = a.data[i * a.cols + j];
  return { rows: rowIndex.length, cols: colIndex.length, data };
}
