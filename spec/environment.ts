/** Where the tests run: settings, files and workers, in Node and in a browser. */

const isNode = 'process' in globalThis;

/** Settings: environment variables, or in a page the parameters of its address. */
export const env: Readonly<Record<string, string | undefined>> = isNode
  ? process.env
  : Object.fromEntries(new URLSearchParams(page().location.search));

/** Cases of each random test, a slow one's aside: few by default, for an answer within a minute; CI takes 200, a search thousands. */
export const RUNS = Number(env.RUNS ?? 50);

/** The bytes of a file of spec/. */
export async function readFile(path: string): Promise<Uint8Array> {
  const url = urlOf(path);
  if (isNode) return (await import('node:fs/promises')).readFile(url);
  return new Uint8Array(await (await fetch(url)).arrayBuffer());
}

/** The names in a folder of spec/, which ends in a slash. */
export async function namesIn(folder: string): Promise<string[]> {
  const url = urlOf(folder);
  if (isNode) return (await import('node:fs/promises')).readdir(url);
  return (await (await fetch(url)).json()) as string[];
}

function urlOf(path: string): URL {
  return new URL(`../../spec/${path}`, import.meta.url);
}

export interface StartedWorker {
  postMessage(message: unknown): void;
  terminate(): unknown;
}

/** Every worker started since this module was loaded, oldest first. */
export const startedWorkers: StartedWorker[] = [];

if (isNode) process.on('worker', worker => startedWorkers.push(worker));
else {
  const { Worker } = page();
  page().Worker = class extends Worker {
    constructor(url: string, options: object) {
      super(url, options);
      startedWorkers.push(this);
    }
  };
}

interface Page {
  readonly location: { readonly search: string };
  Worker: new (url: string, options: object) => StartedWorker;
}

function page(): Page {
  return globalThis as unknown as Page;
}
