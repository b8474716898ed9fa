/** The language model as one ONNX graph with a cache, for prompts and for decode, of the operators that ONNX Runtime is fastest with. */
import type { Floats, Matrix, Weights } from 'xmoe';
import type { Model as LanguageModel, LayerNorm, Linear } from 'xmoe/model';
import type { Attribute, Constant, Model, Node, Value } from './onnx-model.js';

/**
 * How the XMoE layers are computed. In each of them the graph decides by itself which experts keep a token.
 *
 * rows      an expert is given the rows that it kept: gather, split, two products for each, scatter-add
 * weights   the weights of the experts that kept it are gathered: for one token alone
 * all       every expert for every token, as one wide FFN whose hidden units are weighted, with 0 where a token was not kept
 * operator  `com.microsoft::MoE` with every expert in its k; experts of probability 0 it skips
 */
export type ExpertsForm = (typeof expertsForms)[number];
export const expertsForms = ['rows', 'weights', 'all', 'operator'] as const;

export interface GraphOptions {
  readonly experts: ExpertsForm;
  /** Of every token, or of the last alone. */
  readonly logits: 'all' | 'last';
}

/**
 * ids, positions, past0, past1, … -> logits, present0, present1, …
 *
 * Shapes  ids and positions [1, n]; logits [n, 256] or [1, 256]; of each layer past [2, 1, heads, p, d / heads], keys
 *         before values, and present the same with p + n
 * @throws RangeError for what the model that is timed has not: another router or activation, a capacity, a skip expert
 */
export function languageModel(model: LanguageModel, { experts, logits }: GraphOptions): Model {
  const { config, embedTokens, embedPositions, layers, finalNorm } = model;
  const { router, threshold, activation, capacityFactor, skipExpert } = config.layer;
  if (router !== 'threshold' || activation !== 'relu' || capacityFactor !== null || skipExpert)
    throw new RangeError(`"model" expected the threshold router and relu, no capacity and no skip expert`);
  const { dModel, numHeads, layerNormEps } = config;
  const graph = new Graph();
  const norm = ({ weight, bias }: LayerNorm) => [graph.floats([dModel], weight), graph.floats([dModel], bias)];
  const epsilon = { epsilon: { float: layerNormEps } };

  /** x + added + bias, and its norm. */
  const addAndNorm = (x: string, added: string, bias: Floats | undefined, next: LayerNorm) => {
    const inputs = [added, x, ...norm(next), ...(bias ? [graph.floats([dModel], bias)] : [])];
    const [normed, , , sum] = graph.add('SkipLayerNormalization', inputs, epsilon, 4);
    return [normed, sum];
  };
  const attention = (normed: string, l: number) => {
    const { q, k, v } = layers[l].attention;
    const weight = concatRows([q.weight, k.weight, v.weight]);
    const bias = graph.floats(
      [3 * dModel],
      [q, k, v].flatMap(linear => [...linear.bias]),
    );
    const inputs = [graph.batch(normed, dModel), graph.transposed([weight]), bias, '', `past${l}`];
    const y = graph.add('Attention', inputs, { num_heads: numHeads, unidirectional: 1 }, 1, [`present${l}`]);
    return graph.rows(y[0], dModel);
  };

  const tables = [graph.matrix(embedTokens), graph.matrix(embedPositions)];
  const embedding = ['ids', '', ...tables, '', ...norm(layers[0].attentionNorm), '', 'positions'];
  let [normed, , x] = graph.add('EmbedLayerNormalization', embedding, epsilon, 3);
  [normed, x] = [graph.rows(normed, dModel), graph.rows(x, dModel)];
  layers.forEach(({ attention: { o }, ffnNorm, ffn }, l) => {
    const mixed = graph.product(attention(normed, l), o.weight);
    [normed, x] = addAndNorm(x, mixed, o.bias, ffnNorm);
    let added =
      ffn.kind === 'dense'
        ? graph.product(graph.one('Relu', [graph.linear(normed, ffn.dense.up)]), ffn.dense.down.weight)
        : xmoe[experts](graph, normed, ffn.moe, threshold!);
    if (l === layers.length - 1 && logits === 'last')
      [added, x] = [added, x].map(all => graph.one('Gather', [all, graph.integers(-1)], { axis: 0 }));
    const bias = ffn.kind === 'dense' ? ffn.dense.down.bias : undefined;
    [normed, x] = addAndNorm(x, added, bias, layers[l + 1]?.attentionNorm ?? finalNorm);
  });
  graph.nodes.push({ op: 'Gemm', inputs: [normed, graph.transposed([embedTokens])], outputs: ['logits'] });

  const cache = (name: string, length: string): Value[] =>
    layers.map((_, l) => ({ name: `${name}${l}`, type: 'float', dims: [2, 1, numHeads, length, dModel / numHeads] }));
  const tokens = ['ids', 'positions'].map((name): Value => ({ name, type: 'int32', dims: [1, 'n'] }));
  return {
    nodes: graph.nodes,
    constants: graph.constants,
    inputs: [...tokens, ...cache('past', 'p')],
    outputs: [{ name: 'logits', type: 'float', dims: ['rows', embedTokens.rows] }, ...cache('present', 'p + n')],
  };
}

/** x [n, d] -> y [n, d] of an XMoE layer. */
type Experts = (graph: Graph, x: string, weights: Weights, threshold: number) => string;

const xmoe: Readonly<Record<ExpertsForm, Experts>> = {
  rows(graph, x, weights, threshold) {
    const { up, upBias, down, downBias } = weights;
    const weightOf = graph.one('Transpose', [sparseProbs(graph, x, weights, threshold)]); // [E, n]
    const pairs = graph.one('Transpose', [graph.one('NonZero', [weightOf])]); // (expert, token), by expert: [A, 2]
    const [, token] = graph.add('Split', [pairs], { axis: 1, num_outputs: 2 }, 2);
    const kept = graph.one('Cast', [graph.one('Greater', [weightOf, graph.scalar(0)])], { to: INT64 });
    const numRows = graph.one('ReduceSum', [kept, graph.integers(1)], { keepdims: 0 });
    const given = graph.add('Split', [graph.one('GatherND', [x, token]), numRows], { axis: 0 }, up.length);
    const outs = given.map((rows, e) => {
      const hidden = graph.linear(rows, { weight: up[e], bias: rowOf(upBias!, e) });
      return graph.linear(graph.one('Relu', [hidden]), { weight: down[e], bias: rowOf(downBias!, e) });
    });
    const weight = graph.one('Unsqueeze', [graph.one('GatherND', [weightOf, pairs]), graph.integers(1)]);
    const weighted = graph.one('Mul', [graph.one('Concat', outs, { axis: 0 }), weight]);
    return graph.one('ScatterND', [graph.one('Sub', [x, x]), token, weighted], { reduction: 'add' });
  },
  weights(graph, x, weights, threshold) {
    const { up, upBias, down, downBias } = weights;
    const [E, m, d] = [up.length, up[0].rows, up[0].cols];
    const { probs, experts, kept } = select(graph, x, weights, threshold);
    const isKept = graph.one('Reshape', [kept, graph.integers(-1)]);
    const [chosen, weight] = [experts, probs].map(all => graph.one('Compress', [all, isKept])); // [k]
    const ofChosen = (constant: string) => graph.one('Gather', [constant, chosen]);
    const product = (a: string, w: readonly Matrix[], bias: Matrix, rows: number, cols: number) => {
      const sum = graph.one('MatMul', [a, ofChosen(graph.transposed(w, [E, cols, rows]))]);
      return graph.one('Add', [sum, ofChosen(graph.floats([E, 1, rows], bias.data))]); // [k, 1, rows]
    };
    const hidden = graph.one('Relu', [product(x, up, upBias!, m, d)]);
    const out = graph.one('Squeeze', [product(hidden, down, downBias!, d, m), graph.integers(1)]);
    return graph.one('Unsqueeze', [graph.one('MatMul', [weight, out]), graph.integers(0)]);
  },
  all(graph, x, weights, threshold) {
    const { up, upBias, down, downBias } = weights;
    const [E, m, d] = [up.length, up[0].rows, up[0].cols];
    const probs = sparseProbs(graph, x, weights, threshold);
    const hidden = graph.one('Relu', [graph.linear(x, { weight: concatRows(up), bias: upBias!.data })]);
    const perExpert = graph.one('Reshape', [hidden, graph.integers(-1, E, m)]);
    const weighted = graph.one('Mul', [perExpert, graph.one('Unsqueeze', [probs, graph.integers(2)])]);
    const bias = graph.one('Gemm', [probs, graph.matrix(downBias!)]);
    return graph.one('Gemm', [graph.rows(weighted, E * m), graph.transposed(down, [E * m, d]), bias]);
  },
  operator(graph, x, weights, threshold) {
    const { up, upBias, down, downBias } = weights;
    const [E, m, d] = [up.length, up[0].rows, up[0].cols];
    const probs = sparseProbs(graph, x, weights, threshold);
    // Its softmax makes them p / Σ p of those that are kept.
    const logits = graph.one('Log', [probs]);
    const first = [graph.floats([E, m, d], concatRows(up).data), graph.matrix(upBias!)];
    const second = [graph.floats([E, d, m], concatRows(down).data), graph.matrix(downBias!)];
    const attributes = { k: E, activation_type: 'relu', normalize_routing_weights: 0 };
    const y = graph.one('MoE', [x, logits, ...first, ...second], attributes);
    return graph.one('Mul', [y, graph.one('ReduceSum', [probs, graph.integers(1)])]);
  },
};

/** The experts of each token by falling probability, and whether each keeps it: the mass before it is less than τ. All [n, E]. */
function select(graph: Graph, x: string, { router }: Weights, threshold: number) {
  const all = graph.one('Softmax', [graph.product(x, router)], { axis: 1 });
  const [probs, experts] = graph.add('TopK', [all, graph.integers(router.rows)], {}, 2);
  const massBefore = graph.one('CumSum', [probs, graph.integers(1)], { exclusive: 1 });
  return { all, probs, experts, kept: graph.one('Less', [massBefore, graph.scalar(threshold)]) };
}

/** Probabilities, 0 where an expert does not keep a token: [n, E]. */
function sparseProbs(graph: Graph, x: string, weights: Weights, threshold: number): string {
  const { all, probs, experts, kept } = select(graph, x, weights, threshold);
  const keptProbs = graph.one('Where', [kept, probs, graph.scalar(0)]);
  return graph.one('ScatterElements', [graph.one('Sub', [all, all]), experts, keptProbs], { axis: 1 });
}

/** Of TensorProto.DataType. */
const INT64 = 7;

const CONTRIB = new Set(['Attention', 'EmbedLayerNormalization', 'MoE', 'SkipLayerNormalization']);

/** A graph that grows. Names of values come out of what adds an operator or a constant. */
class Graph {
  readonly nodes: Node[] = [];
  readonly constants: Constant[] = [];
  #numValues = 0;

  /** An operator; the names of its first outputs, after which come the outputs that are named. */
  add(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
    numOutputs = 1,
    named: readonly string[] = [],
  ): string[] {
    const outputs = Array.from({ length: numOutputs }, () => `v${this.#numValues++}`);
    const domain = CONTRIB.has(op) ? 'com.microsoft' : '';
    this.nodes.push({ op, inputs, outputs: [...outputs, ...named], attributes, domain });
    return outputs;
  }

  one(op: string, inputs: readonly string[], attributes?: Readonly<Record<string, Attribute>>): string {
    return this.add(op, inputs, attributes)[0];
  }

  /** x wᵀ + bias; a relu after it is made one with it. */
  linear(x: string, { weight, bias }: Linear): string {
    return this.one('Gemm', [x, this.transposed([weight]), this.floats([weight.rows], bias)]);
  }

  /** x wᵀ. */
  product(x: string, weight: Matrix): string {
    return this.one('Gemm', [x, this.transposed([weight])]);
  }

  /** [1, n, cols] -> [n, cols], or whatever has as many in a row. */
  rows(x: string, cols: number): string {
    return this.one('Reshape', [x, this.integers(-1, cols)]);
  }

  /** [n, cols] -> [1, n, cols]. */
  batch(x: string, cols: number): string {
    return this.one('Reshape', [x, this.integers(1, -1, cols)]);
  }

  matrix({ rows, cols, data }: Matrix): string {
    return this.floats([rows, cols], data);
  }

  /** The transposes of matrices of one shape, one after the other: what products need no copy of. */
  transposed(matrices: readonly Matrix[], dims: readonly number[] = [matrices[0].cols, matrices[0].rows]): string {
    const [{ rows, cols }] = matrices;
    const data = new Float32Array(matrices.length * rows * cols);
    matrices.forEach((matrix, e) => {
      for (let i = 0; i < rows; i++)
        for (let j = 0; j < cols; j++) data[(e * cols + j) * rows + i] = matrix.data[i * cols + j];
    });
    return this.floats(dims, data);
  }

  floats(dims: readonly number[], data: Floats | readonly number[]): string {
    return this.#constant(dims, Float32Array.from(data));
  }

  scalar(value: number): string {
    return this.#constant([], Float32Array.of(value));
  }

  /** [values.length] */
  integers(...values: number[]): string {
    return this.#constant([values.length], BigInt64Array.from(values, BigInt));
  }

  #constant(dims: readonly number[], data: Constant['data']): string {
    const name = `c${this.constants.length}`;
    this.constants.push({ name, dims, data });
    return name;
  }
}

function concatRows(matrices: readonly Matrix[]): Matrix {
  const [{ rows, cols }] = matrices;
  const data = new Float64Array(matrices.length * rows * cols);
  matrices.forEach((matrix, e) => {
    data.set(matrix.data, e * rows * cols);
  });
  return { rows: matrices.length * rows, cols, data };
}

function rowOf({ cols, data }: Matrix, i: number): Floats {
  return data.subarray(i * cols, (i + 1) * cols);
}
