/**
 * All experts in one graph of standard operators: gather, split by expert, two products each, weight, scatter-add. The
 * routing is an input.
 */

import type { Layer, Step } from '../layers.js';
import type { Constant, Model, Node, Value } from '../onnx-model.js';
import type { Contender } from './contender.js';
import { type Feeds, floats, integers, openSession, type Runtime } from './onnxruntime.js';

export function onnxruntimeGraph(runtime: Runtime): Contender {
  return {
    name: `${runtime} graph`,
    router: 'threshold',
    threads: [1, 2],
    async open(layer, threads) {
      const dense = layer.shape.numExperts === 1;
      const model = dense ? denseModel(layer) : sparseModel(layer);
      const session = await openSession(runtime, model, { threads, spin: true });
      const feeds = layer.steps.map(step => (dense ? { x: floats(runtime, step.x) } : feedsOf(runtime, step)));
      return { run: step => session.run(feeds[step]), close: session.close };
    },
  };
}

function feedsOf(runtime: Runtime, { x, plan }: Step): Feeds {
  const { tokenIndex, expertOffsets, combineWeight } = plan;
  const rowsPerExpert = expertOffsets.subarray(1).map((last, e) => last - expertOffsets[e]);
  return {
    x: floats(runtime, x),
    tokenIndex: integers(runtime, tokenIndex, [tokenIndex.length, 1]),
    rowsPerExpert: integers(runtime, rowsPerExpert, [rowsPerExpert.length]),
    combineWeight: floats(runtime, { rows: tokenIndex.length, cols: 1, data: combineWeight }),
  };
}

function sparseModel(layer: Layer): Model {
  const { dModel, numExperts } = layer.shape;
  const experts = Array.from({ length: numExperts }, (_, e) => e);
  return {
    nodes: [
      { op: 'GatherND', inputs: ['x', 'tokenIndex'], outputs: ['given'] },
      {
        op: 'Split',
        inputs: ['given', 'rowsPerExpert'],
        outputs: experts.map(e => `given${e}`),
        attributes: { axis: 0 },
      },
      ...experts.flatMap(e => expertNodes(e, `given${e}`, `out${e}`)),
      { op: 'Concat', inputs: experts.map(e => `out${e}`), outputs: ['out'], attributes: { axis: 0 } },
      { op: 'Mul', inputs: ['out', 'combineWeight'], outputs: ['weighted'] },
      { op: 'Shape', inputs: ['x'], outputs: ['shape'] },
      { op: 'ConstantOfShape', inputs: ['shape'], outputs: ['zeros'] },
      {
        op: 'ScatterND',
        inputs: ['zeros', 'tokenIndex', 'weighted'],
        outputs: ['y'],
        attributes: { reduction: 'add' },
      },
    ],
    constants: experts.flatMap(e => expertConstants(layer, e)),
    inputs: [
      { name: 'x', type: 'float', dims: ['T', dModel] },
      { name: 'tokenIndex', type: 'int64', dims: ['A', 1] },
      { name: 'rowsPerExpert', type: 'int64', dims: [numExperts] },
      { name: 'combineWeight', type: 'float', dims: ['A', 1] },
    ],
    outputs: [{ name: 'y', type: 'float', dims: ['T', dModel] }],
  };
}

/** One expert is given every token, with weight 1. */
function denseModel(layer: Layer): Model {
  return expertModel(layer, 0);
}

/** One expert alone: x -> y, both [rows, d]. */
export function expertModel(layer: Layer, e: number): Model {
  const value = (name: string): Value => ({ name, type: 'float', dims: ['rows', layer.shape.dModel] });
  return {
    nodes: expertNodes(e, 'x', 'y'),
    constants: expertConstants(layer, e),
    inputs: [value('x')],
    outputs: [value('y')],
  };
}

function expertNodes(e: number, input: string, output: string): Node[] {
  return [
    { op: 'Gemm', inputs: [input, `up${e}`], outputs: [`pre${e}`], attributes: { transB: 1 } },
    { op: 'Relu', inputs: [`pre${e}`], outputs: [`hidden${e}`] },
    { op: 'Gemm', inputs: [`hidden${e}`, `down${e}`], outputs: [output], attributes: { transB: 1 } },
  ];
}

function expertConstants({ shape: { dModel, dFf }, weights }: Layer, e: number): Constant[] {
  return [
    { name: `up${e}`, dims: [dFf, dModel], data: weights.up[e].data as Float32Array },
    { name: `down${e}`, dims: [dModel, dFf], data: weights.down[e].data as Float32Array },
  ];
}
