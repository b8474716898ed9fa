/** The workers of a backend: they are started, given loops, and watched, so that no call waits for the dead. */
import { Control } from './control.js';
import type { WasmMemory } from './engine.js';
import type { KernelModule } from './kernels.js';
import { mayBlock, type StartWorker, type WorkerHandle } from './start-worker.js';
import { kernelList, type Loop, performAlone, putLoop } from './tasks.js';
import { FAILED, IDLE, type Start, takeTasks, WORKING } from './worker.js';
import type { Workspace } from './workspace.js';

/** A worker thread died, failed or stood still, and the call has no result. The next call has new workers. */
export class WorkerError extends Error {
  override readonly name = 'WorkerError';
}

/** While it waits for a worker, a caller looks this often whether it lives. */
const SLICE_MS = 100;
/** A worker that finishes no kernel in so many slices is given up: a minute. */
const PATIENCE = 600;
const STOOD_STILL = `a worker that finished nothing in ${(PATIENCE * SLICE_MS) / 1000} s`;

/** Workers that live and die together. Once one has failed, `dissolve` is all that is left to do. */
export class Team {
  readonly #control: Control;
  readonly #workers: WorkerHandle[] = [];
  /** Those that the workers were sent. */
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
    this.#control = new Control(numThreads);
    this.#module = module;
    this.#numThreads = numThreads;
    this.#startWorker = startWorker;
    this.#startUpTo(numThreads - 1); // the caller is one of the threads
  }

  /** Resolves when every worker runs; it can be of use before. @throws WorkerError where one cannot be started */
  ready(): Promise<void> {
    return this.#until(() => this.#numReady === this.#workers.length);
  }

  /** @throws WorkerError where a worker has died or failed */
  check(): void {
    const failure = this.#failure();
    if (failure) throw failure;
  }

  /**
   * Performs a loop, the caller taking part. It ends when the last worker has finished its task: until then the caller
   * sleeps, or looks again and again where it may not.
   *
   * @throws WorkerError where a worker did not finish
   */
  run(space: Workspace, loop: Loop): void {
    if (loop.length < 2) {
      performAlone(space.kernels, loop);
      return;
    }
    const numPlaces = this.#numThreads - 1;
    this.#open(space, loop, { numPlaces, numWoken: Math.min(numPlaces, loop.length - 1), replies: false });
    try {
      takeTasks(this.#control.words, new Int32Array(space.memory.wasmMemory.buffer), kernelList(space.kernels));
    } finally {
      this.#control.close();
      for (let worker = 0; worker < this.#workers.length; worker++) this.#waitFor(worker);
    }
  }

  /** Performs a loop on as many workers as there are threads, while the caller goes on. @throws as `run` does, in the promise */
  async runAsync(space: Workspace, loop: Loop): Promise<void> {
    if (loop.length === 0) return;
    const numPlaces = this.#numThreads;
    this.#startUpTo(numPlaces);
    this.#open(space, loop, { numPlaces, numWoken: Math.min(numPlaces, loop.length), replies: true });
    await this.#until(() => {
      if (!this.#control.isTaken()) return false;
      this.#control.close();
      return this.#workers.every((_, worker) => this.#control.state(worker) === IDLE);
    });
  }

  /** Ends every worker, and the call that waits for them. */
  dissolve(reason: string): void {
    this.#end ??= reason;
    for (const worker of this.#workers) worker.terminate();
    this.#onNews();
  }

  #open(
    { memory, kernels }: Workspace,
    loop: Loop,
    who: { numPlaces: number; numWoken: number; replies: boolean },
  ): void {
    const position = putLoop(memory, kernels, loop);
    const numPages = memory.numBytes / 65536;
    const numTasks = loop.length;
    this.#control.open({ memory: this.#send(memory.wasmMemory), numPages, position, numTasks, ...who });
  }

  /** The number of a memory among those sent; a new one is sent. */
  #send(memory: WasmMemory): number {
    const known = this.#memories.indexOf(memory);
    if (known >= 0) return known;
    for (const worker of this.#workers) worker.post(memory);
    this.#control.numMemories = this.#memories.push(memory);
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
      const worker = this.#workers.push(handle) - 1;
      handle.post({ control: this.#control.words, worker, module: this.#module.module } satisfies Start);
      for (const memory of this.#memories) handle.post(memory);
    }
  }

  #waitFor(worker: number): void {
    const control = this.#control;
    let patience = PATIENCE;
    let ticks = control.ticks(worker);
    while (control.state(worker) === WORKING) {
      if (this.#mayBlock) control.sleep(worker, SLICE_MS);
      else control.watch(worker, SLICE_MS);
      // Asked before the state is read again: a thread that has ended will not change it any more.
      const failure = this.#failure();
      if (control.state(worker) !== WORKING) break;
      if (failure) throw failure;
      patience = control.ticks(worker) === ticks ? patience - 1 : PATIENCE;
      ticks = control.ticks(worker);
      if (patience === 0) throw failed(STOOD_STILL);
    }
    if (control.state(worker) === FAILED) this.check();
  }

  /** Resolves when it is so, looking at each message and each slice of time; the clock keeps the process alive. */
  #until(isSo: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      let patience = PATIENCE;
      let ticks = 0;
      const look = () => {
        const failure = patience === 0 ? failed(STOOD_STILL) : this.#failure();
        if (!failure && !isSo()) return;
        clearInterval(clock);
        this.#onNews = () => {};
        if (failure) reject(failure);
        else resolve();
      };
      const clock = setInterval(() => {
        const now = this.#workers.reduce((sum, _, worker) => sum + this.#control.ticks(worker), 0);
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
    const isFailed = this.#workers.some((_, worker) => this.#control.state(worker) === FAILED);
    if (isFailed) return failed(`a worker that failed: ${this.#control.failureText()}`);
    if (this.#workers.some(worker => worker.hasEnded())) return failed('a worker that died: its thread ended');
    return undefined;
  }
}

function failed(reason: string): WorkerError {
  return new WorkerError(`"threads" expected workers that finish the call, got ${reason}`);
}
