/** A loaded layer: what a user holds. */
import type { Config, Matrix, RoutingInputs, Weights } from '../types.js';
import { checkInputs, checkLayer } from '../validate.js';
import type { KernelModule } from './kernels.js';
import { checkFloat32, packWeights } from './packed-weights.js';
import { type OpenLayer, runLayer } from './stages.js';
import { workspaceOver } from './workspace.js';

/**
 * A layer in WebAssembly memory of its own. It computes in float32, the router's sums in float64. With no drops the bits
 * of a token's y do not depend on what else is in the call.
 *
 * Memory  weights are packed once, when it is made: later changes of the matrices do not reach it. What a call needs lies
 *         above them and is used again by the next one, so that only a larger call than any before takes more
 */
export class WasmLayer {
  readonly #config: Config;
  #open: OpenLayer | undefined;

  /**
   * @throws TypeError | RangeError for weights and config that do not fit together, that float32 cannot hold, or that
   *         need more memory than can be had: it says how much
   */
  constructor(module: KernelModule, weights: Weights, config: Config) {
    checkLayer(weights, config);
    this.#config = config;
    this.#open = openLayer(module, weights);
  }

  /**
   * The layer in one call. For a trace of the stages in between, give the backend to `forward` of `xmoe`.
   *
   * Shapes  x [T, d] -> y [T, d], float32
   * @throws TypeError | RangeError for x and inputs that do not fit, or need too much memory; Error after `dispose`
   */
  forward(x: Matrix, inputs: RoutingInputs = {}): Matrix {
    if (!this.#open) throw new Error('"layer" expected one in use, got one that was disposed of');
    checkInputs(x, this.#open.packed.dModel, this.#config, inputs);
    checkFloat32('x', x);
    return runLayer(this.#open, x, inputs, this.#config);
  }

  /** Gives its memory back; twice is once. */
  dispose(): void {
    this.#open = undefined;
  }
}

/** Weights that passed `checkLayer`, packed, with kernels over them. */
export function openLayer(module: KernelModule, weights: Weights): OpenLayer {
  const packed = packWeights(weights, module.panelWidth);
  return { ...workspaceOver(module, packed.memory), packed };
}
