/** The layer on a GPU, decisions on the host from the GPU's own probabilities: route, read back, decide, compute, read back. */
import { type DispatchPlan, loadBalancingLoss, type Matrix, type Routing, reference, routers, zeros } from 'xmoe';
import { outputTensors } from 'xmoe/layer-case';
import { arithmeticNamed, type Implementation, type LayerCall, type Outputs } from 'xmoe/oracle';
import type { Buffer, Gpu } from './device.js';
import { activate, combine, linear, softmax } from './kernels.js';

/** Every router and activation, forward only. */
export function webgpuLayer(gpu: Gpu): Implementation {
  return {
    name: `WebGPU (${gpu.about})`,
    arithmetic: arithmeticNamed('f32', { library: 'wgsl' }),
    run: call => computeLayer(gpu, call).finally(() => gpu.free()),
    close: () => gpu.close(),
  };
}

async function computeLayer(gpu: Gpu, call: LayerCall): Promise<Outputs> {
  const { config, inputs } = call;
  const routing = await route(gpu, call);
  const plan = reference.dispatch(routing, inputs, config);
  const { expertOut, y } = await computeExperts(gpu, call, plan);
  const balance = routers[config.router].balanced ? loadBalancingLoss(routing.probs, inputs.tokenMask) : 0;
  const outputs = outputTensors({ routing, plan, y, loadBalancingLoss: balance });
  return outputs.set('expert_out', { shape: [expertOut.rows, expertOut.cols], data: expertOut.data });
}

async function route(gpu: Gpu, { x, weights: { router } }: LayerCall): Promise<Routing> {
  const [numTokens, columns] = [x.rows, router.rows];
  const all = Uint32Array.from({ length: numTokens }, (_, t) => t);
  if (numTokens * columns === 0) return { logits: zeros(numTokens, columns), probs: zeros(numTokens, columns) };
  const logits = multiply(gpu, floats(gpu, x), [router], undefined, all, new Uint32Array(numTokens));
  const probs = gpu.room(numTokens * columns);
  gpu.run(gpu.kernel(softmax), [numTokens, columns, 0, 0], [logits, probs], numTokens);
  const [z, p] = await gpu.read(logits, probs);
  return { logits: { rows: numTokens, cols: columns, data: z }, probs: { rows: numTokens, cols: columns, data: p } };
}

/** The experts' rows, those of a skip expert 0, and y. */
async function computeExperts(
  gpu: Gpu,
  { x, weights, config }: LayerCall,
  plan: DispatchPlan,
): Promise<{ expertOut: Matrix; y: Matrix }> {
  const expertOut = zeros(plan.tokenIndex.length, x.cols);
  const y = zeros(x.rows, x.cols);
  const numSkipped = config.skipExpert ? plan.expertOffsets[1] : 0;
  const tokenIndex = Uint32Array.from(plan.tokenIndex.subarray(numSkipped));
  const count = tokenIndex.length;
  if (count === 0) return { expertOut, y };
  const own = Uint32Array.from({ length: count }, (_, row) => row);
  const expertIndex = expertOfRows(plan, config.skipExpert ? 1 : 0);
  const given = floats(gpu, x);
  const rowsOf = (w: readonly Matrix[], bias: Matrix | undefined) =>
    multiply(gpu, given, w, bias, tokenIndex, expertIndex);

  const up = rowsOf(weights.up, weights.upBias);
  const gate = weights.gate && rowsOf(weights.gate, weights.gateBias);
  const numHidden = count * weights.up[0].rows;
  const hidden = gpu.room(numHidden);
  const sigma = gpu.kernel(activate(config.activation));
  gpu.run(sigma, [numHidden, 0, 0, 0], gate ? [up, gate, hidden] : [up, hidden], numHidden);
  const out = multiply(gpu, hidden, weights.down, weights.downBias, own, expertIndex);

  const sums = gpu.room(y.data.length);
  const combineWeight = gpu.upload(Float32Array.from(plan.combineWeight.subarray(numSkipped)));
  const { pairOffsets, pairIndex } = byToken(tokenIndex, x.rows);
  const buffers = [out, combineWeight, gpu.upload(pairOffsets), gpu.upload(pairIndex), sums];
  gpu.run(gpu.kernel(combine), [x.rows, x.cols, 0, 0], buffers, y.data.length);
  const [outData, sumData] = await gpu.read(out, sums);
  expertOut.data.set(outData, numSkipped * x.cols);
  y.data.set(sumData);
  return { expertOut, y };
}

/** Row i: row rowIndex[i] of a, times w[matrixIndex[i]], plus its bias. */
function multiply(
  gpu: Gpu,
  a: Buffer,
  w: readonly Matrix[],
  bias: Matrix | undefined,
  rowIndex: Uint32Array,
  matrixIndex: Uint32Array,
): Buffer {
  const [{ rows: n, cols: k }] = w;
  const stack = new Float32Array(w.length * n * k);
  w.forEach((matrix, e) => {
    stack.set(matrix.data, e * n * k);
  });
  const count = rowIndex.length * n;
  const out = gpu.room(count);
  const biases = gpu.upload(bias ? Float32Array.from(bias.data) : new Float32Array(1));
  const buffers = [a, gpu.upload(stack), biases, gpu.upload(rowIndex), gpu.upload(matrixIndex), out];
  gpu.run(gpu.kernel(linear), [rowIndex.length, n, k, bias ? 1 : 0], buffers, count);
  return out;
}

function floats(gpu: Gpu, a: Matrix): Buffer {
  return gpu.upload(Float32Array.from(a.data));
}

/** The expert, counted without the skip expert, of each row that is not the skip expert's. */
function expertOfRows({ expertOffsets }: DispatchPlan, firstColumn: number): Uint32Array {
  const experts = Array.from(expertOffsets.subarray(firstColumn + 1), (last, e) =>
    Array<number>(last - expertOffsets[firstColumn + e]).fill(e),
  );
  return Uint32Array.from(experts.flat());
}

/** The rows of each token, in order of expert. */
function byToken(tokenIndex: Uint32Array, numTokens: number): { pairOffsets: Uint32Array; pairIndex: Uint32Array } {
  const rows = Array.from({ length: numTokens }, (): number[] => []);
  tokenIndex.forEach((t, row) => {
    rows[t].push(row);
  });
  let last = 0;
  const offsets = rows.map(({ length }) => {
    last += length;
    return last;
  });
  return { pairOffsets: Uint32Array.from([0, ...offsets]), pairIndex: Uint32Array.from(rows.flat()) };
}
