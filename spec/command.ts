/** The command line many times over, in one thread of its own: for tests that are not about the process. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

export interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const { NO_COLOR, FORCE_COLOR, ...env } = process.env;
let thread: Worker | undefined;
let last: Promise<unknown> = Promise.resolve();

/** What `xmoe ARGUMENTS` prints, started in the root of the repository. Calls take turns; the thread ends with the tests. */
export function xmoe(...args: string[]): Promise<Ended> {
  const ended = last.then(() => ask(args));
  last = ended.catch(() => {});
  return ended;
}

async function ask(args: readonly string[]): Promise<Ended> {
  thread ??= new Worker(new URL('./command-thread.js', import.meta.url), { env });
  thread.ref();
  const heard = new AbortController();
  const { signal } = heard;
  try {
    const answer = once(thread, 'message', { signal }); // or an error
    const end = once(thread, 'exit', { signal }).then(([code]) => {
      throw new Error(`the thread of commands ended with code ${code}`);
    });
    end.catch(() => {}); // it is told by the race
    thread.postMessage(args);
    const [ended] = await Promise.race([answer, end]);
    return ended;
  } finally {
    heard.abort();
    thread.unref();
  }
}
