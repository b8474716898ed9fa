/** The layer as ONNX graphs of standard operators: the router; the experts of a plan; and what the operator MoE takes. */
import type { ActivationName, Matrix, Weights } from 'xmoe';
import type { Constant, Model, Node, Value } from '../../bench/onnx-model.js';

/** x -> logits, probs. */
export function routerModel({ router }: Weights): Model {
  return {
    nodes: [routerProduct, { op: 'Softmax', inputs: ['logits'], outputs: ['probs'], attributes: { axis: 1 } }],
    constants: [constant('router', router)],
    inputs: [value('x', 'T', router.cols)],
    outputs: [value('logits', 'T', router.rows), value('probs', 'T', router.rows)],
  };
}

const routerProduct: Node = {
  op: 'Gemm',
  inputs: ['x', 'router'],
  outputs: ['logits'],
  attributes: { transB: 1 },
};

/**
 * x and a plan -> the rows of `experts`, one or more, and y: gather, split by expert, products and activation, weight,
 * scatter-add.
 */
export function expertsModel(weights: Weights, activation: ActivationName, experts: readonly number[]): Model {
  const dModel = weights.up[0].cols;
  const list = (name: string) => experts.map(e => `${name}${e}`);
  return {
    nodes: [
      { op: 'GatherND', inputs: ['x', 'tokenIndex'], outputs: ['given'] },
      { op: 'Split', inputs: ['given', 'rowsPerExpert'], outputs: list('given'), attributes: { axis: 0 } },
      ...experts.flatMap(e => expertNodes(e, weights, activation)),
      { op: 'Concat', inputs: list('out'), outputs: ['expert_out'], attributes: { axis: 0 } },
      { op: 'Mul', inputs: ['expert_out', 'combineWeight'], outputs: ['weighted'] },
      { op: 'Shape', inputs: ['x'], outputs: ['shape'] },
      { op: 'ConstantOfShape', inputs: ['shape'], outputs: ['zeros'] },
      {
        op: 'ScatterND',
        inputs: ['zeros', 'tokenIndex', 'weighted'],
        outputs: ['y'],
        attributes: { reduction: 'add' },
      },
    ],
    constants: experts.flatMap(e => expertConstants(e, weights)),
    inputs: [
      value('x', 'T', dModel),
      { name: 'tokenIndex', type: 'int64', dims: ['A', 1] },
      { name: 'rowsPerExpert', type: 'int64', dims: [experts.length] },
      value('combineWeight', 'A', 1),
    ],
    outputs: [value('expert_out', 'A', dModel), value('y', 'T', dModel)],
  };
}

function expertNodes(e: number, { upBias, gate, gateBias, downBias }: Weights, activation: ActivationName): Node[] {
  const linear = (name: string, a: string, bias: unknown, out: string): Node => ({
    op: 'Gemm',
    inputs: [a, `${name}${e}`, ...(bias ? [`${name}Bias${e}`] : [])],
    outputs: [out],
    attributes: { transB: 1 },
  });
  const [given, up, gated, sigma, hidden] = ['given', 'preUp', 'preGate', 'sigma', 'hidden'].map(name => name + e);
  const between = gate
    ? [
        linear('gate', given, gateBias, gated),
        ...activationNodes(activation, gated, sigma),
        { op: 'Mul', inputs: [sigma, up], outputs: [hidden] },
      ]
    : activationNodes(activation, up, hidden);
  return [linear('up', given, upBias, up), ...between, linear('down', hidden, downBias, `out${e}`)];
}

function activationNodes(activation: ActivationName, h: string, out: string): Node[] {
  switch (activation) {
    case 'relu':
      return [{ op: 'Relu', inputs: [h], outputs: [out] }];
    case 'gelu':
    case 'geglu':
      return [{ op: 'Gelu', inputs: [h], outputs: [out] }];
    case 'gelu_tanh':
      return [{ op: 'Gelu', inputs: [h], outputs: [out], attributes: { approximate: 'tanh' } }];
    case 'silu':
    case 'swiglu':
      return [
        { op: 'Sigmoid', inputs: [h], outputs: [`${h}Sigmoid`] },
        { op: 'Mul', inputs: [h, `${h}Sigmoid`], outputs: [out] },
      ];
  }
}

function expertConstants(e: number, { up, upBias, gate, gateBias, down, downBias }: Weights): Constant[] {
  const bias = (name: string, biases: Matrix | undefined): Constant[] =>
    biases ? [{ name: `${name}Bias${e}`, dims: [biases.cols], data: float32(biases, e) }] : [];
  return [
    constant(`up${e}`, up[e]),
    ...bias('up', upBias),
    ...(gate ? [constant(`gate${e}`, gate[e]), ...bias('gate', gateBias)] : []),
    constant(`down${e}`, down[e]),
    ...bias('down', downBias),
  ];
}

/** What `com.microsoft::MoE` calls the activations that it has; its gelu is the one with tanh. */
export const MOE_ACTIVATIONS: Readonly<Partial<Record<ActivationName, string>>> = {
  relu: 'relu',
  gelu_tanh: 'gelu',
  silu: 'silu',
  swiglu: 'swiglu',
};

/**
 * x -> logits, y, by the operator `com.microsoft::MoE`: softmax of all logits, the k best as they are, their experts.
 *
 * Source  docs/ContribOperators.md of ONNX Runtime. Its swiglu takes gate and up interleaved, row by row, and computes
 *         g sigmoid(α g) (h + β) with both clamped to a limit: α = 1, β = 0 and no limit make it ours
 */
export function moeModel(weights: Weights, activation: ActivationName, topK: number): Model {
  const { router, up, upBias, gate, gateBias, down, downBias } = weights;
  const dModel = router.cols;
  const [first, firstBias] = gate
    ? [interleaved(gate, up), upBias || gateBias ? interleavedBias(weights) : undefined]
    : [stack('up', up), upBias && constant('upBias', upBias)];
  const swiglu = { activation_alpha: { float: 1 }, activation_beta: { float: 0 }, swiglu_fusion: 1 };
  return {
    nodes: [
      routerProduct,
      {
        op: 'MoE',
        domain: 'com.microsoft',
        inputs: [...['x', 'logits', 'up', firstBias ? 'upBias' : '', 'down'], ...(downBias ? ['downBias'] : [])],
        outputs: ['y'],
        attributes: {
          k: topK,
          activation_type: MOE_ACTIVATIONS[activation]!,
          normalize_routing_weights: 0,
          ...(gate && swiglu),
        },
      },
    ],
    constants: [
      constant('router', router),
      first,
      ...(firstBias ? [firstBias] : []),
      stack('down', down),
      ...(downBias ? [constant('downBias', downBias)] : []),
    ],
    inputs: [value('x', 'T', dModel)],
    outputs: [value('logits', 'T', router.rows), value('y', 'T', dModel)],
  };
}

/** Row 2i is row i of the gate, row 2i + 1 is row i of up: [E, 2m, d]. */
function interleaved(gate: readonly Matrix[], up: readonly Matrix[]): Constant {
  const [{ rows, cols }] = up;
  const data = new Float32Array(up.length * 2 * rows * cols);
  up.forEach((matrix, e) => {
    for (let i = 0; i < rows; i++) {
      const at = (e * rows + i) * 2 * cols;
      data.set(float32(gate[e], i), at);
      data.set(float32(matrix, i), at + cols);
    }
  });
  return { name: 'up', dims: [up.length, 2 * rows, cols], data };
}

/** [E, 2m]; an absent bias is 0. */
function interleavedBias({ up, upBias, gateBias }: Weights): Constant {
  const dFf = up[0].rows;
  const data = new Float32Array(up.length * 2 * dFf);
  for (let i = 0; i < up.length * dFf; i++) {
    data[2 * i] = gateBias?.data[i] ?? 0;
    data[2 * i + 1] = upBias?.data[i] ?? 0;
  }
  return { name: 'upBias', dims: [up.length, 2 * dFf], data };
}

function constant(name: string, { rows, cols, data }: Matrix): Constant {
  return { name, dims: [rows, cols], data: Float32Array.from(data) };
}

/** Matrices of one shape: [E, rows, cols]. */
function stack(name: string, matrices: readonly Matrix[]): Constant {
  const [{ rows, cols }] = matrices;
  const data = new Float32Array(matrices.length * rows * cols);
  matrices.forEach((matrix, e) => {
    data.set(matrix.data, e * rows * cols);
  });
  return { name, dims: [matrices.length, rows, cols], data };
}

function float32({ cols, data }: Matrix, i: number): Float32Array {
  return Float32Array.from(data.subarray(i * cols, (i + 1) * cols));
}

function value(name: string, rows: string, cols: number): Value {
  return { name, type: 'float', dims: [rows, cols] };
}
