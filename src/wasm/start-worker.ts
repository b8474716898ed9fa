/** Worker threads of Node and Web Workers of browsers, as one. */
import { importNode, isNode, nodeProcess } from '../node.js';
import { workerSource } from './worker-source.js';

/** A running worker. */
export interface WorkerHandle {
  post(message: unknown): void;
  terminate(): void;
  /** Whether its thread has ended, seen without an event: a caller that sleeps receives none. Only Node can tell. */
  hasEnded(): boolean;
}

export interface WorkerEvents {
  onMessage(message: unknown): void;
  /** It threw, could not start, or ended. Not after `terminate`. */
  onDeath(reason: string): void;
}

export type StartWorker = (events: WorkerEvents) => WorkerHandle;

interface WebWorker {
  onmessage: ((event: { data: unknown }) => void) | null;
  onerror: ((event: { message?: string }) => void) | null;
  postMessage(message: unknown): void;
  terminate(): void;
}

interface NodeWorker {
  on(event: 'message' | 'error' | 'exit', listener: (value: unknown) => void): void;
  postMessage(message: unknown): void;
  terminate(): void;
  unref(): void;
  readonly performance: { eventLoopUtilization(): { idle: number } };
}

interface WorkerThreads {
  readonly Worker: new (url: URL, options: { name: string; execArgv: string[] }) => NodeWorker;
}

interface Globals {
  readonly Worker?: new (url: string, options: { type: 'module'; name: string }) => WebWorker;
  readonly SharedArrayBuffer?: unknown;
  readonly Blob: new (parts: string[], options: { type: string }) => object;
  readonly URL: typeof URL & { createObjectURL(blob: object): string };
}

const globals = globalThis as unknown as Globals;

/** How workers are started here, or why none can be. */
export async function workerStarter(): Promise<StartWorker | string> {
  if (globals.SharedArrayBuffer === undefined) {
    return 'SharedArrayBuffer is missing (a page needs the headers of cross-origin isolation, COOP and COEP)';
  }
  if (nodeProcess()) return await nodeStarter();
  return globals.Worker ? startWebWorker : 'workers are missing';
}

async function nodeStarter(): Promise<StartWorker | string> {
  const { Worker } = await importNode<WorkerThreads>('node:worker_threads');
  if (!Worker) return 'node:worker_threads is missing';
  const source = `import { parentPort } from 'node:worker_threads';\n${workerSource}\nserve(parentPort);`;
  const url = new URL(`data:text/javascript,${encodeURIComponent(source)}`);

  return ({ onMessage, onDeath }) => {
    let isTerminated = false;
    const worker = new Worker(url, { name: 'xmoe', execArgv: [] });
    worker.on('message', onMessage);
    worker.on('error', error => onDeath(String(error)));
    worker.on('exit', code => {
      if (!isTerminated) onDeath(`its thread ended (exit code ${code})`);
    });
    worker.unref(); // after listening to messages, which refs it
    return {
      post: message => worker.postMessage(message),
      terminate() {
        isTerminated = true;
        worker.terminate();
      },
      // Node asks the thread for its idle time: -1 from one that has ended. Deno and Bun lack that.
      hasEnded: () => isNode() && worker.performance.eventLoopUtilization().idle < 0,
    };
  };
}

function startWebWorker({ onMessage, onDeath }: WorkerEvents): WorkerHandle {
  const blob = new globals.Blob([`${workerSource}\nserve(self);`], { type: 'text/javascript' });
  const url = globals.URL.createObjectURL(blob);
  const worker = new globals.Worker!(url, { type: 'module', name: 'xmoe' });
  worker.onmessage = ({ data }) => {
    globals.URL.revokeObjectURL(url);
    onMessage(data);
  };
  worker.onerror = ({ message }) => onDeath(message ?? 'it could not be started');
  return { post: message => worker.postMessage(message), terminate: () => worker.terminate(), hasEnded: () => false };
}

/** Whether this thread may sleep. A page may not: `Atomics.wait` throws there. */
export function mayBlock(): boolean {
  try {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1, 0);
    return true;
  } catch {
    return false;
  }
}
