/** A layer's weights in memory, and the threads that compute on them: what a loaded layer and the stages of the seam share. */
import type { Weights } from '../types.js';
import type { ExpertFormat } from './formats.js';
import type { KernelModule } from './kernels.js';
import { Memory } from './memory.js';
import type { OpenLayer } from './open-layer.js';
import { packWeights } from './packed-weights.js';
import { type Pool, runAlone, type SplitCall } from './pool.js';
import type { Loop } from './tasks.js';
import { workspaceOver } from './workspace.js';

/** What a backend computes on, one thread or those of a pool, and in which format. */
export interface Threads {
  readonly module: KernelModule;
  readonly numThreads: number;
  /** Absent on one thread. */
  readonly pool: Pool | undefined;
  /** How the weights of experts are stored. */
  readonly experts: ExpertFormat;
}

/** A computation on the layer: it yields the loops that may be split, for so many threads. */
export type Computation<Result> = (layer: OpenLayer, numThreads: number) => Generator<Loop, Result, void>;

export class HeldLayer {
  readonly #threads: Threads;
  readonly #onRelease: (layer: HeldLayer) => void;
  #open: OpenLayer | undefined;
  #isDisposed = false;
  /** Calls of `runAsync` that have not settled. */
  #numUnderWay = 0;

  /**
   * @param weights that passed `checkLayer`; they are packed here, once
   * @param onRelease told when it has given its memory back
   * @throws RangeError for weights that float32 or the format cannot hold, or that need more memory than can be had
   */
  constructor(threads: Threads, weights: Weights, onRelease: (layer: HeldLayer) => void) {
    const { module, pool, experts } = threads;
    const newMemory = (numBytes: number) => pool?.memory(numBytes) ?? new Memory(numBytes, module.isShared);
    const packed = packWeights(weights, module, newMemory, experts);
    this.#threads = threads;
    this.#onRelease = onRelease;
    this.#open = { ...workspaceOver(module, packed.memory), packed };
  }

  /** @throws Error after `dispose` */
  get open(): OpenLayer {
    if (this.#open && !this.#isDisposed) return this.#open;
    throw new Error('"layer" expected one in use, got one that was disposed of');
  }

  /** @throws Error while a `runAsync` is under way; WorkerError where a worker has died: the next call works */
  run<Result>(compute: Computation<Result>): Result {
    const call = this.#call(compute);
    const { pool } = this.#threads;
    if (!pool) return runAlone(call);
    if (this.#numUnderWay > 0) throw new Error('"layer" expected no forwardAsync under way, got one: await it first');
    return pool.run(call);
  }

  /** The same on other threads, while this one is free. @throws as `run` does, in the promise */
  async runAsync<Result>(compute: Computation<Result>): Promise<Result> {
    const { pool } = this.#threads;
    if (!pool) return runAlone(this.#call(compute));
    this.#numUnderWay++;
    try {
      return await pool.runAsync(() => this.#call(compute));
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

  #call<Result>(compute: Computation<Result>): SplitCall<Result> {
    const space = this.open;
    return { space, loops: compute(space, this.#threads.numThreads), moveOut: () => this.#moveOut(space) };
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
    this.#onRelease(this);
  }
}
