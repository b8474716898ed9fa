/** A loaded layer: what a user holds. */
import type { Config, Matrix, RoutingInputs } from '../types.js';
import { checkInputs } from '../validate.js';
import type { HeldLayer } from './hold-layer.js';
import { layerAlone } from './layer-alone.js';
import { layerLoops } from './layer-loops.js';
import type { LayerComputation, LayerResult } from './open-layer.js';
import { checkFloat32 } from './packed-weights.js';

/**
 * A layer in WebAssembly memory of its own. It computes in float32, the router's sums in float64. With no drops the bits
 * of a token's y do not depend on what else is in the call; the number of threads never changes a bit.
 *
 * Memory  weights are packed once, when it is made: later changes of the matrices do not reach it. What a call needs lies
 *         above them and is used again by the next one, so that only a larger call than any before takes more
 */
export class WasmLayer {
  readonly #held: HeldLayer;
  readonly #config: Config;

  constructor(held: HeldLayer, config: Config) {
    this.#held = held;
    this.#config = config;
  }

  /**
   * The layer in one call. For a trace of the stages in between, give the backend to `forward` of `xmoe`.
   *
   * Shapes  x [T, d] -> y [T, d], float32
   * Threads the calling thread is one of them, and sleeps while the last tasks of others end; where it may not (a page), it
   *         looks again and again instead. While a `forwardAsync` of another layer has the threads, it computes alone
   * @throws TypeError | RangeError for x and inputs that do not fit, or need too much memory; Error after `dispose`, and
   *         while a `forwardAsync` of this layer is under way; WorkerError where a worker has died: the next call works
   */
  forward(x: Matrix, inputs: RoutingInputs = {}): Matrix {
    this.#check(x, inputs);
    return this.#held.run(fused(x, inputs, this.#config)).y;
  }

  /**
   * The same bits, while the calling thread is free: other threads compute, as many as the backend has. Calls are made one
   * after another; x and inputs must stay as they are until the promise settles. On one thread it is `forward`.
   *
   * @throws as `forward` does, in the promise
   */
  async forwardAsync(x: Matrix, inputs: RoutingInputs = {}): Promise<Matrix> {
    this.#check(x, inputs);
    return (await this.#held.runAsync(fused(x, inputs, this.#config))).y;
  }

  /** Gives its memory back once no call needs it; twice is once. On threads the backend keeps it for layers to come. */
  dispose(): void {
    this.#held.dispose();
  }

  #check(x: Matrix, inputs: RoutingInputs): void {
    checkInputs(x, this.#held.open.packed.dModel, this.#config, inputs);
    checkFloat32('x', x);
  }
}

/** All stages in one call, as is best for so many threads. */
export function fused(x: Matrix, inputs: RoutingInputs, config: Config): LayerComputation<LayerResult> {
  return (layer, numThreads) => (numThreads === 1 ? layerAlone : layerLoops)(layer, x, inputs, config);
}
