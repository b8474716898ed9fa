/** An ES module as an implementation, in a thread of its own: it may hang, crash or end its thread, and harms nobody. */
import { Worker } from 'node:worker_threads';
import {
  type Arithmetic,
  type Finding,
  type Implementation,
  ImplementationError,
  type LayerCall,
} from '../oracle/index.js';
import { millisecondsOf } from '../process/milliseconds.js';
import type { Answer, Loaded, ModuleSource, Question } from './module-worker.js';

export interface ModuleOptions {
  /** What it computes in, where that is said. */
  readonly arithmetic?: Arithmetic;
  /** Seconds that it has for an answer. Default 60. */
  readonly seconds?: number;
}

const DEFAULT_SECONDS = 60;

/** The least that a module has for an answer after it hung. */
const SHORT_SECONDS = 5;

/** What a module has for its `close`. */
const CLOSE_MS = 1000;

/**
 * The module is loaded, and again, into a new thread, by the first call after it hung or ended its thread. What it does to
 * its inputs is done to the call.
 *
 * @throws TypeError | RangeError for a module that cannot be loaded or exports no implementation
 */
export async function moduleImplementation(path: string, options: ModuleOptions = {}): Promise<Implementation> {
  const { arithmetic, seconds = DEFAULT_SECONDS } = options;
  const source = { path, arithmetic };
  let thread: ModuleThread | undefined = await ModuleThread.start(source, seconds);
  let last: LayerCall | undefined;
  let [slowest, patience] = [0, seconds];
  const end = async () => {
    const ended = thread?.end();
    [thread, last] = [undefined, undefined];
    await ended;
  };
  return {
    ...thread.loaded,
    async run(call) {
      thread ??= await ModuleThread.start(source, seconds);
      const asked = performance.now();
      try {
        const answer = await thread.ask({ call: call === last ? 'again' : call }, patience);
        last = call;
        slowest = Math.max(slowest, (performance.now() - asked) / 1000);
        if ('refused' in answer) throw new ImplementationError('refused', answer.refused);
        if ('error' in answer) throw thrown(answer.error);
        copyInto(call, answer.call);
        return new Map(answer.outputs);
      } catch (error) {
        if (thread?.failure !== error) throw error;
        if (thread?.failure?.kind === 'hung') patience = Math.min(seconds, Math.max(SHORT_SECONDS, 10 * slowest));
        await end();
        throw error;
      }
    },
    close: end,
  };
}

interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: ImplementationError) => void;
  readonly timer: NodeJS.Timeout;
}

/** Any failure ends the thread. */
class ModuleThread {
  readonly loaded: { readonly name: string; readonly arithmetic: Arithmetic };
  readonly #worker: Worker;
  #failure: ImplementationError | undefined;
  #question: Waiting | undefined;

  /** @throws TypeError | RangeError for a module that cannot be loaded or exports no implementation */
  static async start(source: ModuleSource, seconds: number): Promise<ModuleThread> {
    const worker = new Worker(new URL('./module-worker.js', import.meta.url), { workerData: source });
    const loaded = await new Promise<Loaded>(resolve => {
      const fail = (what: string) => {
        clearTimeout(timer);
        resolve({ failed: { type: 'TypeError', message: `"--backend" expected a module that loads, got ${what}` } });
      };
      const timer = setTimeout(
        () => fail(`one that is not loaded within ${seconds} s: ${source.path}`),
        millisecondsOf(seconds),
      );
      worker.once('message', (message: Loaded) => {
        clearTimeout(timer);
        resolve(message);
      });
      worker.once('error', error => fail(String(error)));
      worker.once('exit', () => fail(`one that ends its thread: ${source.path}`));
    });
    if (!('failed' in loaded)) return new ModuleThread(worker, loaded);
    await worker.terminate();
    const { type, message } = loaded.failed;
    throw type === 'RangeError' ? new RangeError(message) : new TypeError(message);
  }

  private constructor(worker: Worker, loaded: ModuleThread['loaded']) {
    this.#worker = worker;
    this.loaded = loaded;
    worker.removeAllListeners('error').removeAllListeners('exit');
    worker.on('message', (answer: Answer) => this.#settle(question => question.resolve(answer)));
    worker.on('error', error => this.#fail('crashed', `was ended by ${error}`));
    worker.on('exit', status => this.#fail('crashed', `ended its thread with status ${status}`));
  }

  /** Why there is no further answer. */
  get failure(): ImplementationError | undefined {
    return this.#failure;
  }

  /** @throws ImplementationError crashed or hung; then the thread is of no more use */
  ask(question: Question, seconds: number): Promise<Answer> {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#fail('hung', `gave no answer within ${seconds} s`), millisecondsOf(seconds));
      this.#question = { resolve, reject, timer };
      this.#worker.postMessage(question);
    });
  }

  /** Lets the module close what it opened, and waits a moment for that. */
  async end(): Promise<void> {
    if (!this.#failure) {
      const question: Question = { call: 'no more' };
      const exited = new Promise(resolve => this.#worker.once('exit', resolve));
      this.#worker.postMessage(question);
      let timer: NodeJS.Timeout | undefined;
      await Promise.race([exited, new Promise(resolve => (timer = setTimeout(resolve, CLOSE_MS)))]);
      clearTimeout(timer);
    }
    await this.#worker.terminate();
  }

  #fail(kind: Finding['kind'], what: string): void {
    this.#failure ??= new ImplementationError(kind, `the module ${what}`);
    const failure = this.#failure;
    this.#settle(question => question.reject(failure));
  }

  #settle(how: (question: Waiting) => void): void {
    const question = this.#question;
    if (!question) return;
    this.#question = undefined;
    clearTimeout(question.timer);
    how(question);
  }
}

function thrown({ name, message, kind }: { name: string; message: string; kind?: string }): Error {
  if (name === 'ImplementationError') return new ImplementationError(kind as Finding['kind'], message);
  return Object.assign(new Error(message), { name });
}

/** Number by number, so that whoever holds the call sees what became of it. */
function copyInto(target: unknown, source: unknown): void {
  if (ArrayBuffer.isView(target)) {
    const [to, from] = [target, source] as unknown as [Float64Array, Float64Array];
    if (to.length === from?.length) to.set(from);
  } else if (typeof target === 'object' && target !== null) {
    for (const key of Object.keys(target)) {
      copyInto((target as Record<string, unknown>)[key], (source as Record<string, unknown> | undefined)?.[key]);
    }
  }
}
