/** A backend of this package as an implementation that the oracle can ask. */
import { outputTensors } from '../../layer-case/index.js';
import { forward } from '../../moe.js';
import type { Backend, Matrix, Weights } from '../../types.js';
import { type Arithmetic, type ArithmeticName, arithmeticNamed } from '../bounds/arithmetic.js';
import type { Implementation, LayerCall, Outputs } from '../types.js';

/**
 * Runs a backend stage by stage and hands over all that it says, the experts' rows included; gradients where they are
 * wanted and it has a backward. A backend of precision `f32` is given its inputs in float32.
 */
export function implementationOf(
  backend: Backend,
  arithmetic: Arithmetic = arithmeticOfBackend(backend),
): Implementation {
  const inFloat32 = remembering(toFloat32);
  return {
    name: backend.name,
    arithmetic,
    run(call): Outputs {
      const { config, weights, x, inputs, gradY } = backend.precision === 'f32' ? rounded(call, inFloat32) : call;
      const trace = forward(backend, x, weights, config, inputs);
      const gradients = gradY && backend.backward?.(trace, x, weights, config, gradY, inputs);
      const outputs = outputTensors(trace, gradients);
      const { out } = trace.experts;
      return outputs.set('expert_out', { shape: [out.rows, out.cols], data: out.data });
    },
  };
}

/** What a backend states: its precision and, where it says how it stores the experts (as WebAssembly's `info` does), that. */
export function arithmeticOfBackend(
  backend: Backend & { readonly info?: { readonly experts?: ArithmeticName } },
): Arithmetic {
  return arithmeticNamed(backend.info?.experts ?? backend.precision);
}

function rounded(call: LayerCall, weightsIn: (weights: Weights) => Weights): LayerCall {
  const { noise } = call.inputs;
  return {
    ...call,
    weights: weightsIn(call.weights),
    x: float32(call.x),
    inputs: { ...call.inputs, ...(noise && { noise: float32(noise) }) },
    ...(call.gradY && { gradY: float32(call.gradY) }),
  };
}

function toFloat32({ router, up, upBias, gate, gateBias, down, downBias }: Weights): Weights {
  return {
    router: float32(router),
    up: up.map(float32),
    ...(upBias && { upBias: float32(upBias) }),
    ...(gate && { gate: gate.map(float32) }),
    ...(gateBias && { gateBias: float32(gateBias) }),
    down: down.map(float32),
    ...(downBias && { downBias: float32(downBias) }),
  };
}

function float32(a: Matrix): Matrix {
  return a.data instanceof Float32Array ? a : { ...a, data: Float32Array.from(a.data) };
}

/** Backends pack weights when they first see them: the same weights, the same object. */
function remembering(convert: (weights: Weights) => Weights): (weights: Weights) => Weights {
  const known = new WeakMap<Weights, Weights>();
  return weights => {
    const converted = known.get(weights) ?? convert(weights);
    known.set(weights, converted);
    return converted;
  };
}
