/** The names of a layer's tensors in files (those of Hugging Face MoE checkpoints) <-> what the code calls them. */
import { rows } from '../matrix.js';
import type { DispatchPlan, Floats, Gradients, Matrix, Trace, Weights } from '../types.js';

/** A tensor ready to be written or compared. */
export interface NamedTensor {
  readonly shape: readonly number[];
  readonly data: Floats | Uint8Array;
}

export type NamedTensors = Map<string, NamedTensor>;

/** Reads one tensor by name: its values and shape, or undefined where the file has none. */
export type ReadTensor = (
  name: string,
  numDimensions: number,
) => { shape: readonly number[]; data: Floats } | undefined;

/** `router.weight` and `experts.*` -> Weights. `require` reads what must be there. */
export function readWeights(read: ReadTensor, hasRouter: boolean): Weights {
  const matrix = (name: string) => toMatrix(read(name, 2));
  const stack = (name: string) => toMatrices(name, read(name, 3));
  const up = required('experts.up_proj', stack('experts.up_proj'));
  const router = hasRouter ? required('router.weight', matrix('router.weight')) : emptyRouter(up);
  const optional = {
    upBias: matrix('experts.up_proj_bias'),
    gate: stack('experts.gate_proj'),
    gateBias: matrix('experts.gate_proj_bias'),
    downBias: matrix('experts.down_proj_bias'),
  };
  const present = Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined));
  return { router, up, down: required('experts.down_proj', stack('experts.down_proj')), ...present };
}

/** Weights, or their gradients, by name; without a router (Hash) there is no `router.weight`. */
export function weightTensors(weights: Weights): NamedTensors {
  const { router, up, upBias, gate, gateBias, down, downBias } = weights;
  const tensors: NamedTensors = new Map();
  if (router.rows > 0) tensors.set('router.weight', fromMatrix(router));
  tensors.set('experts.up_proj', fromMatrices(up));
  if (upBias) tensors.set('experts.up_proj_bias', fromMatrix(upBias));
  if (gate) tensors.set('experts.gate_proj', fromMatrices(gate));
  if (gateBias) tensors.set('experts.gate_proj_bias', fromMatrix(gateBias));
  tensors.set('experts.down_proj', fromMatrices(down));
  if (downBias) tensors.set('experts.down_proj_bias', fromMatrix(downBias));
  return tensors;
}

/** What a backend computed, by the names that `out.*` has in a layer case. Hash has no `logits` and `probs`. */
export function outputTensors(
  trace: Pick<Trace, 'routing' | 'plan' | 'y' | 'loadBalancingLoss'>,
  gradients?: Gradients,
): NamedTensors {
  const { routing, plan, y, loadBalancingLoss } = trace;
  const tensors: NamedTensors = new Map();
  if (routing.logits.cols > 0) {
    tensors.set('logits', fromMatrix(routing.logits));
    tensors.set('probs', fromMatrix(routing.probs));
  }
  tensors.set('selected', selectedTensor(plan));
  tensors.set('kept', keptTensor(plan));
  tensors.set('combine', combineTensor(plan));
  tensors.set('y', fromMatrix(y));
  tensors.set('load_balancing_loss', scalar(loadBalancingLoss));
  if (gradients) {
    tensors.set('loss', scalar(gradients.loss));
    tensors.set('grad.x', fromMatrix(gradients.x));
    for (const [name, tensor] of weightTensors(gradients.weights)) tensors.set(`grad.${name}`, tensor);
  }
  return tensors;
}

/** 1 where token t selected expert e, before capacity: [T, E]. */
function selectedTensor({ selection }: DispatchPlan): NamedTensor {
  return pairTensor(selection, new Uint8Array(selection.expertIndex.length).fill(1));
}

/** 1 where expert e kept token t: [T, E]. */
function keptTensor({ selection, kept }: DispatchPlan): NamedTensor {
  return pairTensor(selection, kept);
}

function pairTensor(
  { numTokens, numExperts, tokenOffsets, expertIndex }: DispatchPlan['selection'],
  flags: Uint8Array,
) {
  const data = new Uint8Array(numTokens * numExperts);
  for (let t = 0; t < numTokens; t++) {
    for (let pair = tokenOffsets[t]; pair < tokenOffsets[t + 1]; pair++) {
      data[t * numExperts + expertIndex[pair]] = flags[pair];
    }
  }
  return { shape: [numTokens, numExperts], data };
}

/** The combine weight where kept, else 0: [T, E]. */
function combineTensor({ selection, expertOffsets, tokenIndex, combineWeight }: DispatchPlan): NamedTensor {
  const { numTokens, numExperts } = selection;
  const data = new Float64Array(numTokens * numExperts);
  for (let e = 0; e < numExperts; e++) {
    for (let i = expertOffsets[e]; i < expertOffsets[e + 1]; i++)
      data[tokenIndex[i] * numExperts + e] = combineWeight[i];
  }
  return { shape: [numTokens, numExperts], data };
}

function scalar(value: number): NamedTensor {
  return { shape: [1], data: Float64Array.of(value) };
}

function fromMatrix(a: Matrix): NamedTensor {
  return { shape: [a.rows, a.cols], data: a.data };
}

/** E matrices of one shape, one behind the other: [E, rows, cols]. */
function fromMatrices(list: readonly Matrix[]): NamedTensor {
  const size = list[0].data.length;
  const data = new Float64Array(list.length * size);
  list.forEach((a, e) => {
    data.set(a.data, e * size);
  });
  return { shape: [list.length, list[0].rows, list[0].cols], data };
}

function toMatrix(tensor: ReturnType<ReadTensor>): Matrix | undefined {
  return tensor && { rows: tensor.shape[0], cols: tensor.shape[1], data: tensor.data };
}

/** [E, rows, cols] -> E matrices, views. */
function toMatrices(name: string, tensor: ReturnType<ReadTensor>): Matrix[] | undefined {
  if (!tensor) return undefined;
  const [numExperts, numRows, cols] = tensor.shape;
  if (tensor.data.length === 0)
    throw new RangeError(`"${name}" expected experts, got shape [${tensor.shape.join(', ')}]`);
  const all = { rows: numExperts * numRows, cols, data: tensor.data };
  return Array.from({ length: numExperts }, (_, e) => rows(all, e * numRows, (e + 1) * numRows));
}

function required<T>(name: string, value: T | undefined): T {
  if (value === undefined) throw new TypeError(`"${name}" expected a tensor, got none in the file`);
  return value;
}

/** Hash has no router: no rows, of the experts' width. */
function emptyRouter(up: readonly Matrix[]): Matrix {
  return { rows: 0, cols: up[0]?.cols ?? 0, data: new Float64Array(0) };
}
