/** The end of a call, for those who bring something for it. */
import { type Abort, within } from '../model/source-types.js';

/** A reason that nobody is told; without one, each abort would make an error with its stack. */
const ENDED = 'the call has ended';

/** Most calls wait for nothing: they have no signal, which would take longer than what it costs to decide about an expert. */
export class Ending {
  readonly #outer: Abort | undefined;
  #inner: ReturnType<typeof within> | undefined;

  constructor(outer: Abort | undefined) {
    this.#outer = outer;
  }

  /** Aborted when the call ends, or with the signal that the call was given. */
  get signal(): Abort {
    this.#inner ??= within(this.#outer);
    return this.#inner.own.signal;
  }

  end(): void {
    this.#inner?.own.abort(ENDED);
    this.#inner?.release();
  }
}
