/** The same layer in another order, or fewer tokens of it. */
import type { Matrix } from 'xmoe';
import type { Layer } from 'xmoe/spec';

/** The listed tokens, in that order, of everything that has tokens. */
export function takeTokens({ config, weights, x, inputs, gradY }: Layer, tokens: readonly number[]): Layer {
  const { noise, tokenIds, hashTable, tokenMask } = inputs;
  return {
    config,
    weights,
    x: takeRows(x, tokens),
    gradY: takeRows(gradY, tokens),
    inputs: {
      ...(noise && { noise: takeRows(noise, tokens) }),
      ...(tokenIds && { tokenIds: Int32Array.from(tokens, t => tokenIds[t]) }),
      ...(hashTable && { hashTable }),
      ...(tokenMask && { tokenMask: Uint8Array.from(tokens, t => tokenMask[t]) }),
    },
  };
}

/** Column e of the logits is what column `columns[e]` was; a skip expert stays column 0. */
export function reorderExperts(layer: Layer, columns: readonly number[]): Layer {
  const { config, weights, inputs } = layer;
  const numSkip = config.skipExpert ? 1 : 0;
  const experts = columns.slice(numSkip).map(e => e - numSkip);
  const { router, up, upBias, gate, gateBias, down, downBias } = weights;
  const { noise, hashTable } = inputs;
  return {
    ...layer,
    weights: {
      router: router.rows === 0 ? router : takeRows(router, columns),
      up: experts.map(e => up[e]),
      ...(upBias && { upBias: takeRows(upBias, experts) }),
      ...(gate && { gate: experts.map(e => gate[e]) }),
      ...(gateBias && { gateBias: takeRows(gateBias, experts) }),
      down: experts.map(e => down[e]),
      ...(downBias && { downBias: takeRows(downBias, experts) }),
    },
    inputs: {
      ...inputs,
      ...(noise && { noise: takeColumns(noise, columns) }),
      ...(hashTable && { hashTable: hashTable.map(e => columns.indexOf(e)) }),
    },
  };
}

/** The same columns of logits, but the skip expert computes: zeros. */
export function withoutSkipping(layer: Layer): Layer {
  const { skipExpert: _, ...config } = layer.config;
  const { router, up, upBias, gate, gateBias, down, downBias } = layer.weights;
  const withFirst = (list: readonly Matrix[]) => [zerosLike(list[0], list[0].rows), ...list];
  const withFirstRow = (a: Matrix) => {
    const wider = zerosLike(a, a.rows + 1);
    wider.data.set(a.data, a.cols);
    return wider;
  };
  return {
    ...layer,
    config: { ...config, numExperts: config.numExperts + 1 },
    weights: {
      router,
      up: withFirst(up),
      down: withFirst(down),
      ...(upBias && { upBias: withFirstRow(upBias) }),
      ...(gate && { gate: withFirst(gate) }),
      ...(gateBias && { gateBias: withFirstRow(gateBias) }),
      ...(downBias && { downBias: withFirstRow(downBias) }),
    },
  };
}

function zerosLike({ cols, data }: Matrix, rows: number): Matrix {
  return {
    rows,
    cols,
    data: data instanceof Float32Array ? new Float32Array(rows * cols) : new Float64Array(rows * cols),
  };
}

/** The listed rows, as often as they are listed. */
export function takeRows(a: Matrix, rows: readonly number[]): Matrix {
  const taken = zerosLike(a, rows.length);
  rows.forEach((from, to) => {
    taken.data.set(a.data.subarray(from * a.cols, (from + 1) * a.cols), to * a.cols);
  });
  return taken;
}

function takeColumns(a: Matrix, columns: readonly number[]): Matrix {
  const data = a.data.map((_, i) => a.data[Math.floor(i / a.cols) * a.cols + columns[i % a.cols]]);
  return { ...a, data };
}
