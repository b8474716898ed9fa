/** The threads of a backend, shared by its layers: one call at a time, each a series of loops. */
import type { KernelModule } from './kernels.js';
import { Memory } from './memory.js';
import type { StartWorker } from './start-worker.js';
import { type Loop, performAlone } from './tasks.js';
import { Team, WorkerError } from './team.js';
import type { Workspace } from './workspace.js';

/** A computation: it yields the loops that may be split, and goes on when all of one is done. */
export interface SplitCall<Result, Step = Loop> {
  readonly space: Workspace;
  readonly loops: Generator<Step, Result, void>;
  /** Told when workers were left behind that may still write into the call's memory: it is theirs from now on. */
  leave(): void;
}

type AnyCall = Pick<SplitCall<unknown>, 'space' | 'leave'>;

export class Pool {
  readonly #newTeam: () => Team;
  #team: Team;
  /** Settles when the last `runAsync` has. */
  #lastAsync: Promise<unknown> = Promise.resolve();
  #numAsync = 0;
  #isDisposed = false;
  readonly #unused: Memory[] = [];

  private constructor(newTeam: () => Team) {
    this.#newTeam = newTeam;
    this.#team = newTeam();
  }

  /** Threads that run, or the reason why none can. */
  static async open(module: KernelModule, numThreads: number, startWorker: StartWorker): Promise<Pool | string> {
    let pool: Pool | undefined;
    try {
      pool = new Pool(() => new Team(module, numThreads, startWorker));
      await pool.#team.ready();
      return pool;
    } catch (error) {
      pool?.dispose();
      return `no worker could be started: ${error instanceof Error ? error.message : error}`;
    }
  }

  /**
   * The call's result, the calling thread taking part. While a `runAsync` has the workers it does all of it.
   *
   * @throws WorkerError if a worker died during the call or since the last one. The workers are new ones after that
   */
  run<Result>(call: SplitCall<Result>): Result {
    if (this.#numAsync > 0) return runAlone(call);
    this.check(call);
    for (;;) {
      const { done, value } = call.loops.next();
      if (done) return value;
      this.perform(call, value);
    }
  }

  /** Sees to it that the workers live when a call begins. @throws as `run` does */
  check(call: AnyCall): void {
    this.#guard(call, () => this.#team.check());
  }

  /** One loop of a call whose caller does other things in between, but none that needs the workers. @throws as `run` does */
  perform(call: AnyCall, loop: Loop): void {
    this.#guard(call, () => this.#team.run(call.space, loop));
  }

  /** The same on workers alone, after the calls that were made before. `begin` is asked for the call when it is its turn. */
  runAsync<Result>(begin: () => SplitCall<Result>): Promise<Result> {
    this.#numAsync++;
    const result = this.#lastAsync.then(() => this.#runInTurn(begin));
    const settled = () => {
      this.#numAsync--;
    };
    this.#lastAsync = result.then(settled, settled);
    return result;
  }

  async #runInTurn<Result>(begin: () => SplitCall<Result>): Promise<Result> {
    const call = begin();
    try {
      this.#team.check();
      for (;;) {
        const { done, value } = call.loops.next();
        if (done) return value;
        await this.#team.runAsync(call.space, value);
      }
    } catch (error) {
      this.#recover(error, call);
      throw error;
    }
  }

  /**
   * A memory of at least so many bytes, all 0: of layers that were disposed of the smallest that is large enough, or else
   * the largest, which grows. Engines may keep a shared memory for as long as a sleeping worker knows it, so it is not left
   * to them.
   *
   * @throws RangeError where so much cannot be had
   */
  memory(numBytes: number, owner: string): Memory {
    const bySize = this.#unused.sort((a, b) => a.numBytes - b.numBytes);
    const memory = bySize.find(unused => unused.numBytes >= numBytes) ?? bySize.at(-1);
    if (!memory) return new Memory(numBytes, true, owner);
    memory.reset(numBytes, owner);
    bySize.splice(bySize.indexOf(memory), 1);
    return memory;
  }

  giveBack(memory: Memory): void {
    if (!this.#isDisposed) this.#unused.push(memory);
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#team.dissolve('a backend that was disposed of');
    for (const { numBytes } of this.#unused) hintGarbage(numBytes);
    this.#unused.length = 0;
  }

  #guard(call: AnyCall, act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#recover(error, call);
      throw error;
    }
  }

  /** A team of which one has failed is dissolved, and another one started. */
  #recover(error: unknown, call: AnyCall): void {
    if (!(error instanceof WorkerError) || this.#isDisposed) return;
    this.#team.dissolve(error.message);
    this.#team = this.#newTeam();
    call.leave();
  }
}

/**
 * V8 looks for garbage when much memory has been taken, but does not count what is shared: as much that is not, which
 * nobody touches and which is dropped at once, is counted.
 */
function hintGarbage(numBytes: number): void {
  try {
    new Memory(numBytes, false);
  } catch {} // there is not so much: it has every reason already
}

/** The same on the calling thread alone. */
export function runAlone<Result>({ space, loops }: Pick<SplitCall<Result>, 'space' | 'loops'>): Result {
  for (;;) {
    const { done, value } = loops.next();
    if (done) return value;
    performAlone(space.kernels, value);
  }
}
