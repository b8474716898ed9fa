/** The workers of a backend and the control block that they share: worker.ts says how they meet. */
import type { WasmMemory } from './engine.js';
import type { KernelModule } from './kernels.js';
import { mayBlock, type StartWorker, type WorkerHandle } from './start-worker.js';
import { kernelList, type Loop, perform, putLoop } from './tasks.js';
import * as shared from './worker.js';
import type { Workspace } from './workspace.js';

/** A worker thread died, failed or stood still, and the call has no result. The next call has new workers. */
export class WorkerError extends Error {
  override readonly name = 'WorkerError';
}

const SLICE_MS = 100;
/** A worker that finishes no kernel in so many slices is given up: a minute. */
const PATIENCE = 600;

/** Workers that live and die together. Once one has failed, `dissolve` is all that is left to do. */
export class Team {
  readonly #control: Int32Array;
  readonly #workers: WorkerHandle[] = [];
  readonly #memories: WasmMemory[] = [];
  readonly #mayBlock = mayBlock();
  readonly #module: KernelModule;
  readonly #numThreads: number;
  readonly #startWorker: StartWorker;
  #numReady = 0;
  /** Why it is no more of use. */
  #end: string | undefined;
  /** Told of every message and death. */
  #onNews = () => {};

  constructor(module: KernelModule, numThreads: number, startWorker: StartWorker) {
    this.#module = module;
    this.#numThreads = numThreads;
    this.#startWorker = startWorker;
    this.#control = new Int32Array(new SharedArrayBuffer(4 * shared.blockOf(numThreads)));
  }

  /** Starts the workers that `run` uses: with the caller they are `numThreads`. They may be used before they are ready. */
  start(): void {
    this.#startUpTo(this.#numThreads - 1);
  }

  /** Resolves when every worker has said that it runs. @throws WorkerError where one cannot be started */
  ready(): Promise<void> {
    return this.#until(() => this.#numReady === this.#workers.length);
  }

  /** @throws WorkerError where a worker has died or failed */
  check(): void {
    const failure = this.#failure();
    if (failure) throw failure;
  }

  /**
   * Performs a loop, the caller taking part.
   *
   * Sleep   it ends when the last worker has finished its task: until then the caller sleeps, or looks again and again
   *         where it may not sleep
   * @throws WorkerError where a worker did not finish
   */
  run(space: Workspace, loop: Loop): void {
    if (loop.length < 2) {
      for (const call of loop.flat()) perform(space.kernels, call);
      return;
    }
    this.#open(space, loop, this.#numThreads - 1, false);
    try {
      const words = new Int32Array(space.memory.wasmMemory.buffer);
      shared.takeTasks(this.#control, words, kernelList(space.kernels));
    } finally {
      Atomics.store(this.#control, shared.PLACES, 0);
      for (let worker = 0; worker < this.#workers.length; worker++) this.#waitFor(worker);
    }
  }

  /** Performs a loop on as many workers as there are threads, while the caller goes on. @throws as `run` does, in the promise */
  async runAsync(space: Workspace, loop: Loop): Promise<void> {
    if (loop.length === 0) return;
    this.#startUpTo(this.#numThreads);
    this.#open(space, loop, this.#numThreads, true);
    await this.#until(() => {
      if (Atomics.load(this.#control, shared.NEXT_TASK) < loop.length) return false;
      Atomics.store(this.#control, shared.PLACES, 0);
      return this.#workers.every((_, worker) => this.#state(worker) === shared.IDLE);
    });
  }

  /** Ends every worker, and the call that waits for them. */
  dissolve(reason: string): void {
    this.#end ??= reason;
    for (const worker of this.#workers) worker.terminate();
    this.#onNews();
  }

  /** Opens a loop for so many workers. Every state is idle here. */
  #open({ memory, kernels }: Workspace, loop: Loop, numPlaces: number, replies: boolean): void {
    const position = putLoop(memory, kernels, loop);
    this.#set(shared.MEMORY, this.#send(memory.wasmMemory));
    this.#set(shared.NUM_PAGES, memory.numBytes / 65536);
    this.#set(shared.LOOP, position);
    this.#set(shared.NUM_TASKS, loop.length);
    this.#set(shared.NEXT_TASK, 0);
    this.#set(shared.REPLIES, replies ? 1 : 0);
    this.#set(shared.PLACES, numPlaces);
    // With a caller that takes part, the last task needs nobody else.
    const numWoken = Math.min(numPlaces, replies ? loop.length : loop.length - 1);
    for (let worker = 0; worker < numWoken; worker++) this.#wake(worker);
  }

  /** The number of a memory among those that the workers have; a new one is sent. */
  #send(memory: WasmMemory): number {
    const known = this.#memories.indexOf(memory);
    if (known >= 0) return known;
    for (const worker of this.#workers) worker.post(memory);
    this.#set(shared.NUM_MEMORIES, this.#memories.push(memory));
    return this.#memories.length - 1;
  }

  #startUpTo(numWorkers: number): void {
    while (this.#workers.length < numWorkers) {
      const handle = this.#startWorker({
        onMessage: message => {
          if (message === 'ready') {
            this.#numReady++;
            handle.hasEnded(); // asked while it runs, it can be asked afterwards
          }
          this.#onNews();
        },
        onDeath: reason => {
          this.#end ??= `a worker that died: ${reason}`;
          this.#onNews();
        },
      });
      const { module } = this.#module;
      handle.post({ control: this.#control, worker: this.#workers.length, module } satisfies shared.Start);
      for (const memory of this.#memories) handle.post(memory);
      this.#workers.push(handle);
    }
  }

  #waitFor(worker: number): void {
    let patience = PATIENCE;
    let ticks = this.#ticks(worker);
    while (this.#state(worker) === shared.WORKING) {
      this.#pause(worker);
      // Asked before the state is read again: a thread that has ended will not change it any more.
      const failure = this.#failure();
      if (this.#state(worker) !== shared.WORKING) break;
      if (failure) throw failure;
      patience = this.#ticks(worker) === ticks ? patience - 1 : PATIENCE;
      ticks = this.#ticks(worker);
      if (patience === 0) throw failed(STOOD_STILL);
    }
    if (this.#state(worker) === shared.FAILED) this.check();
  }

  /** Until the worker's state changes, or a slice of time has passed. */
  #pause(worker: number): void {
    if (this.#mayBlock) {
      Atomics.wait(this.#control, shared.blockOf(worker) + shared.STATE, shared.WORKING, SLICE_MS);
    } else {
      const end = Date.now() + SLICE_MS;
      while (this.#state(worker) === shared.WORKING && Date.now() < end);
    }
  }

  /** Resolves when it is so, looking at each message and each slice of time; the clock keeps the process alive. */
  #until(isSo: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      let patience = PATIENCE;
      let ticks = -1;
      const look = () => {
        const failure = patience === 0 ? failed(STOOD_STILL) : this.#failure();
        if (!failure && !isSo()) return;
        clearInterval(clock);
        this.#onNews = () => {};
        if (failure) reject(failure);
        else resolve();
      };
      const clock = setInterval(() => {
        const now = this.#workers.reduce((sum, _, worker) => sum + this.#ticks(worker), 0);
        patience = now === ticks ? patience - 1 : PATIENCE;
        ticks = now;
        look();
      }, SLICE_MS);
      this.#onNews = look;
      look();
    });
  }

  #failure(): WorkerError | undefined {
    if (this.#end !== undefined) return failed(this.#end);
    const isFailed = this.#workers.some((_, worker) => this.#state(worker) === shared.FAILED);
    if (isFailed) return failed(`a worker that failed: ${this.#failureText()}`);
    if (this.#workers.some(worker => worker.hasEnded())) return failed('a worker that died: its thread ended');
    return undefined;
  }

  #failureText(): string {
    const first = shared.FAILURE + 1;
    return String.fromCharCode(...this.#control.subarray(first, first + Atomics.load(this.#control, shared.FAILURE)));
  }

  #state(worker: number): number {
    return Atomics.load(this.#control, shared.blockOf(worker) + shared.STATE);
  }

  #ticks(worker: number): number {
    return Atomics.load(this.#control, shared.blockOf(worker) + shared.TICKS);
  }

  #wake(worker: number): void {
    const turn = shared.blockOf(worker) + shared.TURN;
    Atomics.add(this.#control, turn, 1);
    Atomics.notify(this.#control, turn);
  }

  #set(word: number, value: number): void {
    Atomics.store(this.#control, word, value);
  }
}

const STOOD_STILL = `a worker that finished nothing in ${(PATIENCE * SLICE_MS) / 1000} s`;

function failed(reason: string): WorkerError {
  return new WorkerError(`"threads" expected workers that finish the call, got ${reason}`);
}
