/** The whole layer as one operator, `com.microsoft::MoE`: softmax of all logits, the k best as they are, their experts. */

import type { Layer } from '../layers.js';
import type { Constant, Model, Node, Value } from '../onnx-model.js';
import type { Contender, Task } from './contender.js';
import { type Feeds, floats, openSession, type Runtime } from './onnxruntime.js';

/** Task `experts`: the logits are an input. The operator has no input for decisions: softmax and top-k stay inside. */
export function onnxruntimeMoe(runtime: Runtime, task: Task): Contender {
  return {
    name: `${runtime} MoE`,
    task,
    router: 'topk',
    threads: [1, 2],
    async open(layer, threads) {
      const session = await openSession(runtime, modelOf(layer, task), { threads, spin: true });
      const feeds = layer.steps.map(({ x, routing }): Feeds => {
        const given = { x: floats(runtime, x) };
        return task === 'layer' ? given : { ...given, logits: floats(runtime, routing.logits) };
      });
      return { run: step => session.run(feeds[step]), close: session.close };
    },
  };
}

function modelOf({ shape, config, weights, up, down }: Layer, task: Task): Model {
  const { dModel, dFf, numExperts } = shape;
  const x: Value = { name: 'x', type: 'float', dims: ['T', dModel] };
  const logits: Value = { name: 'logits', type: 'float', dims: ['T', numExperts] };
  const y: Value = { name: 'y', type: 'float', dims: ['T', dModel] };
  const experts: Constant[] = [
    { name: 'up', dims: [numExperts, dFf, dModel], data: up },
    { name: 'down', dims: [numExperts, dModel, dFf], data: down },
  ];
  const moe: Node = {
    op: 'MoE',
    domain: 'com.microsoft',
    inputs: ['x', 'logits', 'up', '', 'down'],
    outputs: ['y'],
    attributes: { k: config.topK!, activation_type: 'relu', normalize_routing_weights: 0 },
  };
  if (task === 'experts') return { nodes: [moe], constants: experts, inputs: [x, logits], outputs: [y] };
  const router: Constant = {
    name: 'router',
    dims: [numExperts, dModel],
    data: new Float32Array(weights.router.data),
  };
  const product: Node = { op: 'Gemm', inputs: ['x', 'router'], outputs: ['logits'], attributes: { transB: 1 } };
  return { nodes: [product, moe], constants: [router, ...experts], inputs: [x], outputs: [y] };
}
