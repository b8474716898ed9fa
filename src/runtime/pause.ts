/** The pauses of a read: the event loop turns now and then, and there an abort is heard. */
import type { Abort } from '../model/source.js';
import type { Pause } from '../wasm/drive.js';
import { nextTurn } from './event-loop.js';

/** Computing without a turn of the event loop takes no longer than this, or than one loop. */
const TURN_MS = 10;

/** When the event loop last turned: of all reads of a runtime, which follow each other. */
export class Clock {
  turnedAt = performance.now();
}

/** @param check throws what ends the read */
export class ReadPause implements Pause {
  readonly #clock: Clock;
  readonly #check: () => void;
  readonly #signal: Abort | undefined;
  readonly #startedAt = performance.now();
  #pausedMs = 0;

  constructor(clock: Clock, signal: Abort | undefined, check: () => void) {
    this.#clock = clock;
    this.#signal = signal;
    this.#check = check;
  }

  /** Milliseconds of computing so far. */
  get ms(): number {
    return performance.now() - this.#startedAt - this.#pausedMs;
  }

  isDue(): boolean {
    return performance.now() - this.#clock.turnedAt >= TURN_MS;
  }

  async turn(): Promise<void> {
    await this.wait(nextTurn());
    this.#clock.turnedAt = performance.now();
  }

  async wait(promise: Promise<unknown>): Promise<void> {
    const since = performance.now();
    await untilAborted(promise, this.#signal).catch(error => {
      this.#check(); // why the read ends comes before what ends with it
      throw error;
    });
    this.#pausedMs += performance.now() - since;
    this.#check();
  }
}

/** Settles as the promise does, or is rejected with the reason of an abort before that. */
async function untilAborted(promise: Promise<unknown>, signal: Abort | undefined): Promise<void> {
  if (!signal) {
    await promise;
    return;
  }
  let stop = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop);
  });
  try {
    await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
