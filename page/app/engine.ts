/** A model in a worker of its own, as the page holds it. */
import type { RuntimeUsage } from 'xmoe/runtime';
import type { JobName, Jobs, OpenAsk, Opened, ToPage, ToWorker } from './messages.js';

/** What a worker said of an error, under the error's own name. */
class RemoteError extends Error {
  constructor({ name, message }: { readonly name: string; readonly message: string }) {
    super(message);
    this.name = name;
  }
}

/** The worker of the model is no more. */
export class ModelLostError extends Error {
  override readonly name = 'ModelLostError';
}

export interface Turn<Job extends JobName> {
  readonly signal: AbortSignal;
  readonly onPart?: (part: Jobs[Job]['part']) => void;
}

interface Pending {
  readonly onPart: ((part: never) => void) | undefined;
  resolve(answer: never): void;
  reject(error: Error): void;
}

/** A worker hears of an abort within a token. One that has not ended its job so long after is ended itself. */
const ABORT_MS = 5000;

export class Engine {
  readonly #name = `xmoe-${performance.timeOrigin}-${Math.random()}`;
  readonly #worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: this.#name });
  readonly #pending = new Map<number, Pending>();
  /** Ends the wait for the worker's end. */
  readonly #watch = new AbortController();
  #numJobs = 0;
  #lost: ModelLostError | undefined;
  #opened: Opened | undefined;
  #usage: RuntimeUsage | undefined;
  /** Told once, when the worker has ended by itself. */
  onLost: ((error: ModelLostError) => void) | undefined;

  private constructor() {
    this.#worker.onmessage = ({ data }: MessageEvent<ToPage>) => this.#hear(data);
    this.#worker.onerror = event => {
      event.preventDefault();
      this.#lose(`The worker that computes failed: ${event.message ?? 'its script could not be loaded'}`);
    };
  }

  /** @throws as `openRuntime`; ModelLostError; the reason of an abort */
  static async open(ask: OpenAsk, turn: Turn<'open'>): Promise<Engine> {
    const engine = new Engine();
    try {
      engine.#opened = await engine.ask('open', ask, turn);
      return engine;
    } catch (error) {
      engine.close();
      throw error;
    }
  }

  get opened(): Opened {
    return this.#opened!;
  }

  /** When the last job ended. */
  get usage(): RuntimeUsage {
    return this.#usage!;
  }

  /**
   * Have a job done.
   *
   * @throws what the job throws; ModelLostError where the worker ends before it; the reason of an abort, once the job has ended
   */
  ask<Job extends JobName>(
    job: Job,
    ask: Jobs[Job]['ask'],
    { signal, onPart }: Turn<Job>,
  ): Promise<Jobs[Job]['answer']> {
    if (this.#lost) return Promise.reject(this.#lost);
    if (signal.aborted) return Promise.reject(signal.reason);
    const id = this.#numJobs++;
    let deadline: number | undefined;
    const abort = () => {
      this.#post({ id, abort: true });
      deadline = setTimeout(() => this.#lose('The worker that computes did not stop when it was told to'), ABORT_MS);
    };
    signal.addEventListener('abort', abort);
    const answered = new Promise<Jobs[Job]['answer']>((resolve, reject) => {
      this.#pending.set(id, { onPart, resolve, reject });
      this.#post({ id, job, ask });
    });
    return answered
      .catch(error => {
        throw signal.aborted && !this.#lost ? signal.reason : error;
      })
      .finally(() => {
        clearTimeout(deadline);
        signal.removeEventListener('abort', abort);
      });
  }

  /** Gives the model back, its threads with it. */
  close(): void {
    this.onLost = undefined;
    this.#lose('The model was closed');
  }

  #post(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #hear(message: ToPage): void {
    if ('ready' in message) {
      this.#watchForEnd();
      return;
    }
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    if ('part' in message) {
      pending.onPart?.(message.part as never);
      return;
    }
    this.#pending.delete(message.id);
    if ('failed' in message) pending.reject(new RemoteError(message.failed));
    else {
      this.#usage = message.usage;
      pending.resolve(message.answer as never);
    }
  }

  /** The worker holds a lock for as long as it lives. */
  #watchForEnd(): void {
    navigator.locks
      ?.request(this.#name, { signal: this.#watch.signal }, () => this.#lose('The worker that computes was ended'))
      .catch(() => {}); // the wait was ended
  }

  #lose(why: string): void {
    if (this.#lost) return;
    this.#lost = new ModelLostError(why);
    this.#watch.abort();
    this.#worker.terminate();
    for (const { reject } of this.#pending.values()) reject(this.#lost);
    this.#pending.clear();
    this.onLost?.(this.#lost);
  }
}
