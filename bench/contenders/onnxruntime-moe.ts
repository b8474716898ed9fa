/** The whole layer as one operator, `com.microsoft::MoE`: softmax of all logits, the k best as they are, their experts. */
import type { Layer } from '../layers.js';
import type { Constant, Model } from '../onnx-model.js';
import type { Contender } from './contender.js';
import { type Feeds, floats, openSession, type Runtime } from './onnxruntime.js';

export function onnxruntimeMoe(runtime: Runtime): Contender {
  return {
    name: `${runtime} MoE`,
    router: 'topk',
    threads: [1, 2],
    async open(layer, threads) {
      const session = await openSession(runtime, modelOf(layer), { threads, spin: true });
      const feeds = layer.steps.map(({ x }): Feeds => ({ x: floats(runtime, x) }));
      return { run: step => session.run(feeds[step]), close: session.close };
    },
  };
}

/** The router's product, and the operator. */
function modelOf({ shape, config, weights, up, down }: Layer): Model {
  const { dModel, dFf, numExperts } = shape;
  const constants: Constant[] = [
    { name: 'router', dims: [numExperts, dModel], data: new Float32Array(weights.router.data) },
    { name: 'up', dims: [numExperts, dFf, dModel], data: up },
    { name: 'down', dims: [numExperts, dModel, dFf], data: down },
  ];
  return {
    nodes: [
      { op: 'Gemm', inputs: ['x', 'router'], outputs: ['logits'], attributes: { transB: 1 } },
      {
        op: 'MoE',
        domain: 'com.microsoft',
        inputs: ['x', 'logits', 'up', '', 'down'],
        outputs: ['y'],
        attributes: { k: config.topK!, activation_type: 'relu', normalize_routing_weights: 0 },
      },
    ],
    constants,
    inputs: [{ name: 'x', type: 'float', dims: ['T', dModel] }],
    outputs: [{ name: 'y', type: 'float', dims: ['T', dModel] }],
  };
}
