/** The caller's side of the control block: worker.ts says how threads meet in it. */
import * as shared from './worker.js';

/** A loop as it is announced. */
export interface Announced {
  /** Number of the memory among those sent. */
  readonly memory: number;
  readonly numPages: number;
  /** Where the loop lies in it, in words. */
  readonly position: number;
  readonly numTasks: number;
  /** Workers that may join. */
  readonly numPlaces: number;
  /** Workers that are woken. */
  readonly numWoken: number;
  /** Whether workers post a message when they become idle. */
  readonly replies: boolean;
}

export class Control {
  readonly words: Int32Array;

  constructor(numWorkers: number) {
    this.words = new Int32Array(new SharedArrayBuffer(4 * shared.blockOf(numWorkers)));
  }

  /** Lets workers into a loop. All of them are idle before. */
  open({ memory, numPages, position, numTasks, numPlaces, numWoken, replies }: Announced): void {
    this.#set(shared.MEMORY, memory);
    this.#set(shared.NUM_PAGES, numPages);
    this.#set(shared.LOOP, position);
    this.#set(shared.NUM_TASKS, numTasks);
    this.#set(shared.NEXT_TASK, 0);
    this.#set(shared.REPLIES, replies ? 1 : 0);
    this.#set(shared.PLACES, numPlaces);
    for (let worker = 0; worker < numWoken; worker++) {
      const turn = shared.blockOf(worker) + shared.TURN;
      Atomics.add(this.words, turn, 1);
      Atomics.notify(this.words, turn);
    }
  }

  /** Lets nobody in any more: the loop is over when all who were in are idle. */
  close(): void {
    this.#set(shared.PLACES, 0);
  }

  /** Whether every task has been taken. */
  isTaken(): boolean {
    return Atomics.load(this.words, shared.NEXT_TASK) >= Atomics.load(this.words, shared.NUM_TASKS);
  }

  set numMemories(count: number) {
    this.#set(shared.NUM_MEMORIES, count);
  }

  state(worker: number): number {
    return Atomics.load(this.words, shared.blockOf(worker) + shared.STATE);
  }

  ticks(worker: number): number {
    return Atomics.load(this.words, shared.blockOf(worker) + shared.TICKS);
  }

  failureText(): string {
    const first = shared.FAILURE + 1;
    return String.fromCharCode(...this.words.subarray(first, first + Atomics.load(this.words, shared.FAILURE)));
  }

  /** Sleeps until a worker that works does so no more, but no longer than given. */
  sleep(worker: number, milliseconds: number): void {
    const state = shared.blockOf(worker) + shared.STATE;
    if (!shared.changesSoon(this.words, state, shared.WORKING)) {
      Atomics.wait(this.words, state, shared.WORKING, milliseconds);
    }
  }

  /** The same without sleep, where a thread may not. */
  watch(worker: number, milliseconds: number): void {
    const end = Date.now() + milliseconds;
    while (this.state(worker) === shared.WORKING && Date.now() < end);
  }

  #set(word: number, value: number): void {
    Atomics.store(this.words, word, value);
  }
}
