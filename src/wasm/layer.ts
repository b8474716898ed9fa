/** A loaded layer: what a user holds. */
import type { Config, Matrix, RoutingInputs, Weights } from '../types.js';
import { checkInputs, checkLayer } from '../validate.js';
import type { ExpertFormat } from './formats.js';
import type { KernelModule } from './kernels.js';
import { layerLoops } from './layer-loops.js';
import { Memory } from './memory.js';
import { checkFloat32, packWeights } from './packed-weights.js';
import type { Pool, SplitCall } from './pool.js';
import { type OpenLayer, runLayer } from './stages.js';
import { workspaceOver } from './workspace.js';

/** What a layer computes on: one thread, or those of a pool. */
export interface Threads {
  readonly module: KernelModule;
  readonly numThreads: number;
  /** Absent on one thread. */
  readonly pool: Pool | undefined;
}

/**
 * A layer in WebAssembly memory of its own. It computes in float32, the router's sums in float64. With no drops the bits
 * of a token's y do not depend on what else is in the call; the number of threads never changes a bit.
 *
 * Memory  weights are packed once, when it is made: later changes of the matrices do not reach it. What a call needs lies
 *         above them and is used again by the next one, so that only a larger call than any before takes more
 */
export class WasmLayer {
  readonly #threads: Threads;
  readonly #config: Config;
  #open: OpenLayer | undefined;
  #isDisposed = false;
  /** Calls of `forwardAsync` that have not settled. */
  #numUnderWay = 0;

  /**
   * @param experts how the experts' weights are stored
   * @throws TypeError | RangeError for weights and config that do not fit together, that float32 or the format cannot hold,
   *         or that need more memory than can be had: it says how much
   */
  constructor(threads: Threads, weights: Weights, config: Config, experts: ExpertFormat = 'f32') {
    checkLayer(weights, config);
    this.#threads = threads;
    this.#config = config;
    this.#open = openLayer(threads, weights, experts);
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
    const open = this.#checked(x, inputs);
    const { pool } = this.#threads;
    if (!pool) return runLayer(open, x, inputs, this.#config);
    if (this.#numUnderWay > 0) throw new Error('"layer" expected no forwardAsync under way, got one: await it first');
    return pool.run(this.#call(x, inputs));
  }

  /**
   * The same bits, while the calling thread is free: other threads compute, as many as the backend has. Calls are made one
   * after another; x and inputs must stay as they are until the promise settles. On one thread it is `forward`.
   *
   * @throws as `forward` does, in the promise
   */
  async forwardAsync(x: Matrix, inputs: RoutingInputs = {}): Promise<Matrix> {
    const { pool } = this.#threads;
    if (!pool) return this.forward(x, inputs);
    this.#checked(x, inputs);
    this.#numUnderWay++;
    try {
      return await pool.runAsync(() => this.#call(x, inputs));
    } finally {
      this.#numUnderWay--;
      this.#release();
    }
  }

  /** Gives its memory back once no call needs it; twice is once. On threads the backend keeps it for layers to come. */
  dispose(): void {
    this.#isDisposed = true;
    this.#release();
  }

  #checked(x: Matrix, inputs: RoutingInputs): OpenLayer {
    const open = this.#inUse();
    checkInputs(x, open.packed.dModel, this.#config, inputs);
    checkFloat32('x', x);
    return open;
  }

  #inUse(): OpenLayer {
    if (this.#open && !this.#isDisposed) return this.#open;
    throw new Error('"layer" expected one in use, got one that was disposed of');
  }

  #call(x: Matrix, inputs: RoutingInputs): SplitCall {
    const space = this.#inUse();
    const loops = layerLoops(space, x, inputs, this.#config, this.#threads.numThreads);
    return { space, loops, moveOut: () => this.#moveOut(space) };
  }

  /** Takes the weights to another memory. */
  #moveOut({ packed, callStart }: OpenLayer): void {
    this.#open = undefined; // in case there is none to be had
    if (this.#isDisposed) return;
    const memory = packed.memory.copyBelow(callStart);
    this.#open = { ...workspaceOver(this.#threads.module, memory), packed: { ...packed, memory } };
  }

  #release(): void {
    if (!this.#isDisposed || this.#numUnderWay > 0 || !this.#open) return;
    this.#threads.pool?.giveBack(this.#open.memory);
    this.#open = undefined;
  }
}

/** Weights that passed `checkLayer`, packed, with kernels over them. */
export function openLayer({ module, pool }: Threads, weights: Weights, experts: ExpertFormat = 'f32'): OpenLayer {
  const newMemory = (numBytes: number) => pool?.memory(numBytes) ?? new Memory(numBytes, false);
  const packed = packWeights(weights, module, newMemory, experts);
  return { ...workspaceOver(module, packed.memory), packed };
}
