/** A backend that breaks every tie the other way: it is given tokens and experts in the opposite order. */
import type { NamedTensor } from 'xmoe/layer-case';
import type { Implementation, Outputs } from 'xmoe/oracle';
import type { Layer } from 'xmoe/spec';
import { reorderExperts, takeTokens } from './transforms.js';

/** Its outputs in the order of the call; a skip expert stays column 0. */
export function inReverse(implementation: Implementation): (layer: Layer, gradients: boolean) => Promise<Outputs> {
  return async (layer, gradients) => {
    const tokens = range(layer.x.rows).reverse();
    const numSkip = layer.config.skipExpert ? 1 : 0;
    const experts = range(layer.config.numExperts).reverse();
    const columns = [...range(numSkip), ...experts.map(e => e + numSkip)];
    const { gradY, ...call } = takeTokens(reorderExperts(layer, columns), tokens);
    const outputs = await implementation.run(gradients ? { ...call, gradY } : call);
    return new Map(Array.from(outputs, ([name, tensor]) => [name, turned(name, tensor, outputs, tokens, columns)]));
  };
}

function turned(
  name: string,
  tensor: NamedTensor,
  outputs: Outputs,
  tokens: readonly number[],
  columns: readonly number[],
): NamedTensor {
  switch (name) {
    case 'load_balancing_loss':
    case 'loss':
      return tensor;
    case 'y':
    case 'grad.x':
      return take(tensor, tokens);
    case 'grad.router.weight':
      return take(tensor, columns);
    case 'expert_out':
      return take(tensor, rowsTurned(outputs.get('kept')!, columns));
    default:
      return name.startsWith('grad.experts.')
        ? take(tensor, range(tensor.shape[0]).reverse())
        : takeColumns(take(tensor, tokens), columns);
  }
}

/** By expert and by token within an expert, as they were: where each row is now. */
function rowsTurned(kept: NamedTensor, columns: readonly number[]): number[] {
  const [numTokens, numExperts] = kept.shape;
  const rows: number[][] = [];
  let numRows = 0;
  for (let e = 0; e < numExperts; e++) {
    rows.push([]);
    for (let t = 0; t < numTokens; t++) if (kept.data[t * numExperts + e] === 1) rows[e].push(numRows++);
  }
  return columns.flatMap(e => rows[e].reverse());
}

/** The listed parts along the first dimension. */
function take({ shape, data }: NamedTensor, places: readonly number[]): NamedTensor {
  const size = shape.slice(1).reduce((product, length) => product * length, 1);
  const taken = data.slice();
  places.forEach((from, to) => {
    taken.set(data.subarray(from * size, (from + 1) * size), to * size);
  });
  return { shape, data: taken };
}

function takeColumns({ shape, data }: NamedTensor, columns: readonly number[]): NamedTensor {
  const cols = columns.length;
  const taken = data.slice();
  for (let i = 0; i < taken.length; i++) taken[i] = data[i - (i % cols) + columns[i % cols]];
  return { shape, data: taken };
}

function range(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i);
}
