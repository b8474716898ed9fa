/** What lies packed in a memory of its own, and the threads that compute on it: a layer, or a model. */

import { drive, type Pause, type Step } from './drive.js';
import type { ExpertFormat } from './formats.js';
import type { KernelModule } from './kernels.js';
import { Memory } from './memory.js';
import { type Pool, runAlone, type SplitCall } from './pool.js';
import type { Loop } from './tasks.js';
import { type Workspace, workspaceOver } from './workspace.js';

/** What a backend computes on, one thread or those of a pool, and in which format. */
export interface Threads {
  readonly module: KernelModule;
  readonly numThreads: number;
  /** Absent on one thread. */
  readonly pool: Pool | undefined;
  /** How the weights of experts are stored. */
  readonly experts: ExpertFormat;
}

/** A workspace whose memory begins with what is packed. */
export interface Open<Packed> extends Workspace {
  readonly packed: Packed;
}

/** A computation on what is packed: it yields the loops that may be split, for so many threads. */
export type Computation<Packed, Result, Yields = Loop> = (
  open: Open<Packed>,
  numThreads: number,
) => Generator<Yields, Result, void>;

/** A memory for a layer or a model, all 0. @throws MemoryError that names the owner, where so much cannot be had */
export function newMemory({ pool, module }: Threads, numBytes: number, owner: string): Memory {
  return pool?.memory(numBytes, owner) ?? new Memory(numBytes, module.isShared, owner);
}

export class Held<Packed> {
  readonly #threads: Threads;
  readonly #owner: string;
  readonly #onRelease: (held: Held<Packed>) => void;
  #open: Open<Packed> | undefined;
  #isDisposed = false;
  /** Whether workers were left behind that may still write into its memory. */
  #isLeft = false;
  /** Calls that have not settled: of `runAsync`, and of `runInTurns`. */
  #numUnderWay = 0;

  /**
   * @param owner whose memory it is, for errors
   * @param memory from `newMemory`, with all that is packed
   * @param onRelease told when it has given its memory back
   */
  constructor(
    threads: Threads,
    owner: string,
    memory: Memory,
    packed: Packed,
    onRelease: (held: Held<Packed>) => void = () => {},
  ) {
    this.#threads = threads;
    this.#owner = owner;
    this.#onRelease = onRelease;
    this.#open = { ...workspaceOver(threads.module, memory), packed };
  }

  /**
   * Where it lies now: in another memory than before, if workers were left behind in that one.
   *
   * @throws Error after `dispose`; MemoryError where there is no other memory to be had: asked again, it looks again
   */
  get open(): Open<Packed> {
    if (!this.#open || this.#isDisposed) {
      throw new Error(`"${this.#owner}" expected one in use, got one that was disposed of`);
    }
    if (this.#isLeft) {
      const { memory, packed } = this.#open;
      this.#open = { ...workspaceOver(this.#threads.module, memory.copyKept(this.#owner)), packed };
      this.#isLeft = false;
    }
    return this.#open;
  }

  /** @throws Error while a `runAsync` is under way; WorkerError where a worker has died: the next call works */
  run<Result>(compute: Computation<Packed, Result>): Result {
    const call = this.#call(compute);
    const { pool } = this.#threads;
    if (!pool) return runAlone(call);
    if (this.#numUnderWay > 0) {
      throw new Error(`"${this.#owner}" expected no forwardAsync under way, got one: await it first`);
    }
    return pool.run(call);
  }

  /** The same on other threads, while this one is free. @throws as `run` does, in the promise */
  async runAsync<Result>(compute: Computation<Packed, Result>): Promise<Result> {
    const { pool } = this.#threads;
    if (!pool) return runAlone(this.#call(compute));
    return await this.#underWay(() => pool.runAsync(() => this.#call(compute)));
  }

  /**
   * The same with this thread among those that compute, which now and then pauses: one call at a time, and the only one
   * that the threads have.
   *
   * @throws as `run` does, and what a pause or an awaited promise throws, in the promise
   */
  runInTurns<Result>(compute: Computation<Packed, Result, Step>, pause: Pause): Promise<Result> {
    return this.#underWay(async () => drive(this.#call(compute), this.#threads.pool, pause));
  }

  /** Gives its memory back once no call needs it; twice is once. On threads the backend keeps it for layers to come. */
  dispose(): void {
    this.#isDisposed = true;
    this.#release();
  }

  async #underWay<Result>(act: () => Promise<Result>): Promise<Result> {
    this.#numUnderWay++;
    try {
      return await act();
    } finally {
      this.#numUnderWay--;
      this.#release();
    }
  }

  #call<Result, Yields>(compute: Computation<Packed, Result, Yields>): SplitCall<Result, Yields> {
    const space = this.open;
    const leave = () => {
      this.#isLeft = true;
    };
    return { space, loops: compute(space, this.#threads.numThreads), leave };
  }

  #release(): void {
    if (!this.#isDisposed || this.#numUnderWay > 0 || !this.#open) return;
    if (!this.#isLeft) this.#threads.pool?.giveBack(this.#open.memory);
    this.#open = undefined;
    this.#onRelease(this);
  }
}
