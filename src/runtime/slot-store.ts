/** What is brought when it is needed, into slots of which there may be fewer than there are things: experts. */
import { type Abort, within } from '../model/source-types.js';

/** So many are read at once at most. */
const AT_ONCE = 6;

/** Things by number, each in a slot while it is there; the least recently used make room. One `bring` at a time. */
export class SlotStore<Slot, Value> {
  readonly #read: (key: number, signal: Abort) => Promise<Value>;
  readonly #free: Slot[];
  /** Least recently used first. */
  readonly #held = new Map<number, Slot>();
  readonly #numSlots: number;
  #numReads = 0;
  #numEvictions = 0;

  /**
   * @param slots at least one
   * @param read gets what belongs into a slot; the signal says that it is not wanted any more
   */
  constructor(slots: readonly Slot[], read: (key: number, signal: Abort) => Promise<Value>) {
    this.#free = slots.toReversed();
    this.#numSlots = slots.length;
    this.#read = read;
  }

  /** How many are held, how often one was read, and how often one was let go. */
  get usage(): { readonly resident: number; readonly reads: number; readonly evictions: number } {
    return { resident: this.#held.size, reads: this.#numReads, evictions: this.#numEvictions };
  }

  /** The slot of what was brought last. */
  slotOf(key: number): Slot {
    return this.#held.get(key)!;
  }

  /**
   * Sees to it that all of these are held, and makes them the most recently used, the last one most of all.
   *
   * @param keys no two alike, at most as many as there are slots
   * @param put writes what was read into a slot, whose owner before it is no longer there
   * @returns nothing, where there is nothing to wait for
   * @throws in the promise: what reading or `put` throws, or the reason of an abort: what has arrived by then is held
   */
  bring(keys: readonly number[], put: (slot: Slot, value: Value) => void, signal?: Abort): Promise<void> | undefined {
    const missing = keys.filter(key => !this.#held.has(key));
    if (missing.length > 0) return this.#bring(keys, missing, put, signal);
    this.#use(keys);
    return undefined;
  }

  async #bring(
    keys: readonly number[],
    missing: readonly number[],
    put: (slot: Slot, value: Value) => void,
    signal: Abort | undefined,
  ): Promise<void> {
    const needed = new Set(keys);
    const { own, release } = within(signal);
    const queue = missing.values();
    const readOn = async () => {
      for (const key of queue) {
        const reading = within(own.signal);
        const value = await this.#read(key, reading.own.signal)
          .catch(error => {
            reading.own.abort(error); // where it is read in parts, the others are not wanted
            throw error;
          })
          .finally(reading.release);
        if (own.signal.aborted) throw own.signal.reason; // its slot may be another's by now
        this.#numReads++;
        const slot = this.#free.pop() ?? this.#evict(needed);
        try {
          put(slot, value);
        } catch (error) {
          this.#free.push(slot);
          throw error;
        }
        this.#held.set(key, slot);
      }
    };
    try {
      if (own.signal.aborted) throw own.signal.reason;
      await Promise.all(Array.from({ length: Math.min(AT_ONCE, missing.length) }, readOn));
      this.#use(keys);
    } catch (error) {
      own.abort(error);
      throw error;
    } finally {
      release();
    }
  }

  #use(keys: readonly number[]): void {
    for (const key of keys) {
      const slot = this.#held.get(key)!;
      this.#held.delete(key);
      this.#held.set(key, slot);
    }
  }

  #evict(needed: ReadonlySet<number>): Slot {
    for (const [key, slot] of this.#held) {
      if (needed.has(key)) continue;
      this.#held.delete(key);
      this.#numEvictions++;
      return slot;
    }
    throw new RangeError(`"keys" expected at most ${this.#numSlots}, got ${needed.size}`);
  }
}
