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
import { loadPeer } from '../../bench/peers.js';
import { expertsModel, MOE_ACTIVATIONS, moeModel, routerModel } from './onnx-layer.js';

/** Why a runtime is not here. */
export function missing(runtime: Runtime): string | undefined {
  try {
    loadPeer(runtime);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

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
    refuses({ x, config, inputs }) {
      if (!['topk', 'switch', 'dense'].includes(config.router)) return `router ${config.router}`;
      if (MOE_ACTIVATIONS[config.activation] === undefined) return `activation ${config.activation}`;
      if (mayDrop(config, x.rows)) return 'capacity';
      if (config.skipExpert) return 'a skip expert';
      if (inputs.noise) return 'noise';
      return inputs.tokenMask?.includes(0) ? 'padding' : undefined;
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

/** The experts' rows, those of a skip expert 0, and y. Experts without rows are not in the graph. */
async function computeExperts(runtime: Runtime, { x, weights, config }: LayerCall, plan: DispatchPlan) {
  const expertOut = zeros(plan.tokenIndex.length, x.cols);
  const offsets = plan.expertOffsets.subarray(config.skipExpert ? 1 : 0);
  const numSkipped = offsets[0];
  const tokenIndex = plan.tokenIndex.subarray(numSkipped);
  if (tokenIndex.length === 0) return { expertOut, y: zeros(x.rows, x.cols) };
  const numRows = offsets.subarray(1).map((last, e) => last - offsets[e]);
  const busy = weights.up.map((_, e) => e).filter(e => numRows[e] > 0);
  const weight = plan.combineWeight.subarray(numSkipped);
  const outputs = await runOnce(runtime, expertsModel(weights, config.activation, busy), {
    x: floats(runtime, x),
    tokenIndex: integers(runtime, tokenIndex, [tokenIndex.length, 1]),
    rowsPerExpert: integers(
      runtime,
      numRows.filter(count => count > 0),
      [busy.length],
    ),
    combineWeight: floats(runtime, { rows: weight.length, cols: 1, data: weight }),
  });
  expertOut.data.set(outputs.expert_out, numSkipped * x.cols);
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
