/** One thing at a time. */

/** A new piece of work ends the one before it, and begins when that has ended: the latest wins. */
export class Turns {
  #current: AbortController | undefined;
  #last: Promise<void> = Promise.resolve();
  readonly #onError: (error: unknown) => void;

  /** @param onError told what a piece of work throws, unless it was told to end */
  constructor(onError: (error: unknown) => void) {
    this.#onError = onError;
  }

  run(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    this.stop();
    const abort = new AbortController();
    this.#current = abort;
    this.#last = this.#last.then(async () => {
      if (abort.signal.aborted) return;
      try {
        await work(abort.signal);
      } catch (error) {
        if (!abort.signal.aborted) this.#onError(error);
      } finally {
        if (this.#current === abort) this.#current = undefined;
      }
    });
    return this.#last;
  }

  /** Settles when what was under way has ended. */
  stop(): Promise<void> {
    this.#current?.abort();
    return this.#last;
  }
}
