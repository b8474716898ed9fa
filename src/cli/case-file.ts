import { exactDtype, outputTensors, writeLayerCase } from '../layer-case/index.js';
import { backward, forward, reference } from '../moe.js';
import type { LayerCall } from '../oracle/index.js';

/** A layer case with what the reference computes for it; its gradients where the call has a cotangent. */
export function caseFile(name: string, call: LayerCall): Uint8Array {
  const { x, weights, config, inputs, gradY } = call;
  const trace = forward(reference, x, weights, config, inputs);
  const gradients = gradY && backward(trace, x, weights, config, gradY, inputs);
  const layerCase = { name, ...call, recorded: outputTensors(trace, gradients), dropOrderOpen: false };
  return writeLayerCase(layerCase, exactDtype(call));
}
