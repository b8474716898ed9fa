/**
 * What a worker runs, and what it shares with the thread that calls a layer: a loop of tasks, taken one by one.
 *
 * No imports: workers are started from the compiled text of this file (see worker-source.d.ts).
 *
 * The control block is int32 words of shared memory that are read and written by `Atomics` alone, so that what one thread
 * wrote before it stored a word, another sees that loaded it. First the words of the team, which the caller writes (but for
 * NEXT_TASK and the text of a failure); then a block for each worker.
 *
 *   caller                                          worker
 *   all states are IDLE: writes the tasks into      sleeps while TURN is what it was
 *   the layer's memory, and the words of the loop   …
 *   PLACES = number of workers that may join
 *   TURN + 1 and notify, for each of those          state = WORKING
 *   takes tasks (if it may be blocked)              if its place < PLACES: takes tasks
 *   NEXT_TASK >= NUM_TASKS: PLACES = 0              state = IDLE, and notify
 *   waits until every state is IDLE                 sleeps
 *
 * A worker says that it works before it looks for a place, and the caller closes the places before it looks for workers:
 * so a worker that wakes too late either is waited for, or finds no place. Who is slow to wake holds nobody up.
 */

/** Words of the team. */
export const PLACES = 0;
/** Which memory the loop is in, by the order in which they were sent. */
export const MEMORY = 1;
/** Where the loop lies in it, in words: a task's start for each, and the end; then the calls (see tasks.ts). */
export const LOOP = 2;
export const NUM_TASKS = 3;
export const NEXT_TASK = 4;
/** How many bytes the memory has by now. A worker's view may be older. */
export const NUM_PAGES = 5;
/** 1: a worker posts a message whenever it has become idle, for a caller that cannot sleep. */
export const REPLIES = 6;
/** Memories sent so far. A worker that has fewer returns to its event loop, which hands them over. */
export const NUM_MEMORIES = 7;
/** Why a worker failed: the length of the text, and its letters. */
export const FAILURE = 8;
export const FAILURE_LENGTH = 200;

/** Words of worker i, from `blockOf(i)` on: cache lines of its own. */
export const TURN = 0;
export const STATE = 1;
/** Counts finished calls: a worker whose count stands still is stuck. */
export const TICKS = 2;

export const IDLE = 0;
export const WORKING = 1;
export const FAILED = 2;

const TEAM_WORDS = 256;
const WORKER_WORDS = 32;

export function blockOf(worker: number): number {
  return TEAM_WORDS + worker * WORKER_WORDS;
}

/** The first message to a worker; the ones after it are memories. */
export interface Start {
  readonly control: Int32Array;
  readonly worker: number;
  readonly module: object;
}

type Kernel = (...args: number[]) => void;

/** The kernels in the order of the module's exports: a call names one by its place there. */
interface Space {
  readonly memory: SharedMemory;
  readonly kernels: readonly Kernel[];
}

interface SharedMemory {
  readonly buffer: SharedArrayBuffer;
  grow(pages: number): number;
}

/**
 * Takes tasks until none is left.
 *
 * @param ticks where the finished calls are counted
 */
export function takeTasks(control: Int32Array, words: Int32Array, kernels: readonly Kernel[], ticks?: number): void {
  const numTasks = Atomics.load(control, NUM_TASKS);
  const loop = Atomics.load(control, LOOP);
  for (;;) {
    const task = Atomics.add(control, NEXT_TASK, 1);
    if (task >= numTasks) return;
    const end = words[loop + task + 1];
    for (let at = words[loop + task]; at < end; ) {
      const firstArgument = at + 2;
      const next = firstArgument + words[at + 1];
      kernels[words[at]](...words.subarray(firstArgument, next));
      if (ticks !== undefined) Atomics.add(control, ticks, 1);
      at = next;
    }
  }
}

/** Waking a thread takes longer than the next loop of a call is away: it looks for some microseconds before it sleeps. */
const LOOKS = 20_000;

/** Whether a word ceases to be `value` while it is looked at. */
export function changesSoon(control: Int32Array, word: number, value: number): boolean {
  for (let look = 0; look < LOOKS; look++) if (Atomics.load(control, word) !== value) return true;
  return false;
}

interface Port {
  onmessage: ((event: { data: Start | SharedMemory }) => void) | null;
  postMessage(message: unknown): void;
}

declare const WebAssembly: { Instance: new (module: object, imports: object) => { exports: object } };

/** A worker's life. It ends when the team is dissolved. */
export function serve(port: Port): void {
  let start: Start | undefined;
  const spaces: Space[] = [];

  /** Sleeps and works until a message is on its way. */
  function work({ control, worker }: Start): void {
    const [turnAt, stateAt] = [blockOf(worker) + TURN, blockOf(worker) + STATE];
    for (;;) {
      const turn = Atomics.load(control, turnAt);
      if (Atomics.load(control, NUM_MEMORIES) !== spaces.length) return;
      Atomics.store(control, stateAt, WORKING);
      if (worker < Atomics.load(control, PLACES)) join(control, worker);
      Atomics.store(control, stateAt, IDLE);
      Atomics.notify(control, stateAt);
      if (Atomics.load(control, REPLIES)) port.postMessage('idle');
      if (!changesSoon(control, turnAt, turn)) Atomics.wait(control, turnAt, turn);
    }
  }

  function join(control: Int32Array, worker: number): void {
    const space = spaces[Atomics.load(control, MEMORY)];
    if (!space) return; // it is on its way: the next turn of `work` goes and gets it
    const { memory, kernels } = space;
    // An engine may be late to tell this thread that another one made the memory grow.
    if (memory.buffer.byteLength < Atomics.load(control, NUM_PAGES) * 65536) memory.grow(0);
    takeTasks(control, new Int32Array(memory.buffer), kernels, blockOf(worker) + TICKS);
  }

  function fail({ control, worker }: Start, error: unknown): void {
    port.onmessage = null;
    const text = String(error).slice(0, FAILURE_LENGTH);
    for (let i = 0; i < text.length; i++) Atomics.store(control, FAILURE + 1 + i, text.charCodeAt(i));
    Atomics.store(control, FAILURE, text.length);
    Atomics.store(control, blockOf(worker) + STATE, FAILED);
    Atomics.notify(control, blockOf(worker) + STATE);
    port.postMessage('failed');
  }

  port.onmessage = ({ data }) => {
    if (!start) {
      start = data as Start;
      port.postMessage('ready');
    } else {
      const memory = data as SharedMemory;
      try {
        const { exports } = new WebAssembly.Instance(start.module, { env: { memory } });
        spaces.push({ memory, kernels: Object.values(exports) });
      } catch (error) {
        return fail(start, error);
      }
    }
    try {
      work(start);
    } catch (error) {
      fail(start, error);
    }
  };
}
