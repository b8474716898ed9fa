/** A long call in turns: its loops one by one and, in between, whatever else the calling thread has to do. */
import type { Pool, SplitCall } from './pool.js';
import { type Loop, performAlone } from './tasks.js';

/** What a long call yields: a loop, or what it has to wait for. */
export type Step = Loop | Promise<unknown>;

/** When a long call pauses. What it throws ends the call. */
export interface Pause {
  /** Whether it has computed for long enough. */
  isDue(): boolean;
  /** Lets others have their turn. */
  turn(): Promise<void>;
  /** Waits for what the call needs. */
  wait(promise: Promise<unknown>): Promise<void>;
}

/** @throws WorkerError where a worker has died; what the call, or the pause, throws */
export async function drive<Result>(
  call: SplitCall<Result, Step>,
  pool: Pool | undefined,
  pause: Pause,
): Promise<Result> {
  pool?.check(call);
  for (;;) {
    const { done, value } = call.loops.next();
    if (done) return value;
    if (value instanceof Promise) await pause.wait(value);
    else if (pool) pool.perform(call, value);
    else performAlone(call.space.kernels, value);
    if (pause.isDue()) await pause.turn();
  }
}
