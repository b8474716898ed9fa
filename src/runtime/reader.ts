/** The reads of all streams of a model: one after another, each on a cache of its own. */
import { unexpected } from '../check.js';
import type { Abort } from '../model/source-types.js';
import type { Config } from '../types.js';
import type { Held } from '../wasm/held.js';
import { cacheBytes } from './attention.js';
import { Ending } from './ending.js';
import type { Experts } from './experts.js';
import { costsOf } from './facts.js';
import { readSteps } from './forward.js';
import type { PackedModel } from './packed-model.js';
import { Clock, ReadPause } from './pause.js';
import { Slots } from './slots.js';
import type { Reading } from './types.js';

/** The keys and values of a text. */
export interface Cache {
  /** How many bytes have been read. */
  numTokens: number;
  /** Where it lies, once there is something in it. */
  ptr: number | undefined;
  /** Reads that have not settled. */
  numReads: number;
  isDisposed: boolean;
}

export interface ReadRequest {
  readonly ids: Uint8Array;
  /** That of the XMoE layers, with the router that routes this read. */
  readonly config: Config;
  readonly logits: 'all' | 'last';
  readonly signal: Abort | undefined;
}

export class Reader {
  readonly #held: Held<PackedModel>;
  readonly #experts: Experts;
  readonly #slots: Slots;
  readonly #clock = new Clock();
  /** Settles when the last read has. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(held: Held<PackedModel>, experts: Experts) {
    this.#held = held;
    this.#experts = experts;
    this.#slots = new Slots(cacheBytes(held.open.packed));
  }

  /**
   * When all reads before it have settled.
   *
   * @throws RangeError where the context has no room for so many bytes; the reason of an abort; Error after a disposal: the
   *         cache is then as before
   */
  async read(cache: Cache, request: ReadRequest): Promise<Reading> {
    cache.numReads++;
    const reading = this.#last.then(() => this.#readNow(cache, request));
    this.#last = reading.catch(() => {});
    try {
      return await reading;
    } finally {
      cache.numReads--;
      this.release(cache);
    }
  }

  /** Takes the memory of a cache back that is disposed of, once no read needs it. */
  release(cache: Cache): void {
    if (!cache.isDisposed || cache.numReads > 0 || cache.ptr === undefined) return;
    this.#slots.give(cache.ptr);
    cache.ptr = undefined;
  }

  async #readNow(cache: Cache, { ids, config, logits, signal }: ReadRequest): Promise<Reading> {
    const check = () => {
      if (signal?.aborted) throw signal.reason;
      if (cache.isDisposed) throw new Error('"stream" expected one in use, got one that was disposed of');
      return this.#held.open;
    };
    const { memory, packed } = check();
    const start = cache.numTokens;
    const room = packed.config.contextLength - start;
    if (ids.length > room) {
      throw unexpected(RangeError, 'ids', `at most ${room} bytes (left of the context)`, String(ids.length));
    }
    cache.ptr ??= this.#slots.take(memory);
    const firstWithLogits = logits === 'all' ? 0 : Math.max(0, ids.length - 1);
    const pause = new ReadPause(this.#clock, signal, check);
    const ending = new Ending(signal);
    const call = {
      ids,
      start,
      cachePtr: cache.ptr,
      config,
      firstWithLogits,
      experts: this.#experts,
      ending,
    };
    const result = await this.#held.runInTurns(readSteps(call), pause).finally(() => ending.end());
    cache.numTokens += ids.length;
    const tokens = costsOf(packed, start, ids.length, result.routed, firstWithLogits);
    return { logits: result.logits, tokens, ms: pause.ms };
  }
}
