/** ONNX Runtime, native or compiled to WebAssembly, as an implementation of the layer. A session for each call: its weights are its graph's. */
import {
  type Config,
  capacityOf,
  type DispatchPlan,
  loadBalancingLoss,
  type Matrix,
  type Routing,
  reference,
  routers,
  zeros,
} from 'xmoe';
import { type NamedTensor, outputTensors } from 'xmoe/layer-case';
import { arithmeticNamed, type Implementation, type LayerCall, type Outputs } from 'xmoe/oracle';
import { type Feeds, floats, integers, openSession, type Runtime } from '../../bench/contenders/onnxruntime.js';
import type { Model } from '../../bench/onnx-model.js';
import { expertsModel, MOE_ACTIVATIONS, moeModel, routerModel } from './onnx-layer.js';

/** Graphs of standard operators, every router and activation, forward only: decisions are the host's, from the graph's probabilities. */
export function onnxruntimeGraph(runtime: Runtime): Implementation {
  return {
    name: `${runtime} graph`,
    arithmetic: arithmeticNamed('f32'),
    async run(call) {
      const { config, inputs } = call;
      const routing = await route(runtime, call);
      const plan = reference.dispatch(routing, inputs, config);
      const { expertOut, y } = await computeExperts(runtime, call, plan);
      const balance = routers[config.router].balanced ? loadBalancingLoss(routing.probs, inputs.tokenMask) : 0;
      return outputTensors({ routing, plan, y, loadBalancingLoss: balance }).set('expert_out', tensorOf(expertOut));
    },
  };
}

/** Whether an expert may be full before it has all tokens. */
function mayDrop({ router, capacityFactor, minCapacity = 4, numExperts }: Config, numTokens: number): boolean {
  if (router === 'dense' || capacityFactor === null) return false;
  return capacityOf(numTokens, capacityFactor, minCapacity, numExperts) < numTokens;
}

/** The operator `com.microsoft::MoE`: top-k without noise, capacity or padding. It says y, and the graph before it the logits. */
export function onnxruntimeMoe(runtime: Runtime): Implementation {
  return {
    name: `${runtime} MoE`,
    arithmetic: arithmeticNamed('f32'),
    refuses({ x, config, inputs, weights }) {
      if (!['topk', 'switch', 'dense'].includes(config.router)) return `router ${config.router}`;
      if (MOE_ACTIVATIONS[config.activation] === undefined) return `activation ${config.activation}`;
      if (mayDrop(config, x.rows)) return 'capacity';
      if (config.skipExpert) return 'a skip expert';
      if (inputs.noise) return 'noise';
      if (inputs.tokenMask?.includes(0)) return 'padding';
      return weights.up.length === 0 ? 'no experts' : undefined;
    },
    async run({ x, weights, config }): Promise<Outputs> {
      const topK = { switch: 1, dense: config.numExperts }[config.router as string] ?? config.topK!;
      const { logits, y } = await runOnce(runtime, moeModel(weights, config.activation, topK), {
        x: floats(runtime, x),
      });
      return new Map([
        ['logits', tensorOf({ rows: x.rows, cols: weights.router.rows, data: logits })],
        ['y', tensorOf({ ...x, data: y })],
      ]);
    },
  };
}

async function route(runtime: Runtime, { x, weights }: LayerCall): Promise<Routing> {
  const shape = { rows: x.rows, cols: weights.router.rows };
  if (shape.cols === 0) return { logits: zeros(x.rows, 0), probs: zeros(x.rows, 0) };
  const { logits, probs } = await runOnce(runtime, routerModel(weights), { x: floats(runtime, x) });
  return { logits: { ...shape, data: logits }, probs: { ...shape, data: probs } };
}

/** The experts' rows, those of a skip expert 0, and y. */
async function computeExperts(runtime: Runtime, { x, weights, config }: LayerCall, plan: DispatchPlan) {
  const firstColumn = config.skipExpert ? 1 : 0;
  const offsets = plan.expertOffsets.subarray(firstColumn);
  const tokenIndex = plan.tokenIndex.subarray(offsets[0]);
  const feeds = {
    x: floats(runtime, x),
    tokenIndex: integers(runtime, tokenIndex, [tokenIndex.length, 1]),
    rowsPerExpert: integers(
      runtime,
      offsets.subarray(1).map((last, e) => last - offsets[e]),
      [weights.up.length],
    ),
    combineWeight: floats(runtime, {
      rows: tokenIndex.length,
      cols: 1,
      data: plan.combineWeight.subarray(offsets[0]),
    }),
  };
  const outputs = await runOnce(runtime, expertsModel(weights, config.activation), feeds);
  const expertOut = zeros(plan.tokenIndex.length, x.cols);
  expertOut.data.set(outputs.expert_out, offsets[0] * x.cols);
  return { expertOut, y: { ...x, data: outputs.y } };
}

async function runOnce(runtime: Runtime, model: Model, feeds: Feeds): Promise<Readonly<Record<string, Float32Array>>> {
  const session = await openSession(runtime, model, { threads: 1, spin: false });
  try {
    return await session.runAll(feeds);
  } finally {
    await session.close();
  }
}

function tensorOf({ rows, cols, data }: Matrix): NamedTensor {
  return { shape: [rows, cols], data };
}
