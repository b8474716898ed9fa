/** Holds one model, and computes for the page: it never freezes. The protocol is messages.ts. */
import { openRuntime, type Runtime } from 'xmoe/runtime';
import { bitsOf } from './bits.js';
import type { JobName, Jobs, ToPage, ToWorker } from './messages.js';

interface Scope {
  readonly name: string;
  onmessage: ((event: { readonly data: ToWorker }) => void) | null;
  postMessage(message: ToPage): void;
}

const scope = self as unknown as Scope;

interface Turn<Job extends JobName> {
  readonly signal: AbortSignal;
  tell(part: Jobs[Job]['part']): void;
}

type Runners = { readonly [Job in JobName]: (ask: Jobs[Job]['ask'], turn: Turn<Job>) => Promise<Jobs[Job]['answer']> };

let runtime: Runtime;

const runners: Runners = {
  async open({ source, ...options }, { signal, tell }) {
    const onProgress = (numBytes: number, total: number) => tell({ numBytes, total });
    runtime = await openRuntime(source, { ...options, signal, onProgress });
    return { config: runtime.config, info: runtime.info };
  },

  async write({ prompt, ...options }, { signal, tell }) {
    for await (const { byte, bits, layers } of runtime.generate(prompt, { ...options, signal })) {
      tell({ byte, bits, layers });
    }
    return null;
  },

  async read({ text, threshold }, { signal, tell }) {
    const { contextLength } = runtime.config;
    const stream = runtime.stream();
    try {
      for (let start = 0; start < text.length - 1; start += contextLength) {
        const end = Math.min(start + contextLength, text.length - 1);
        stream.clear();
        const { logits, tokens } = await stream.read(text.subarray(start, end), { threshold, signal });
        tell(
          tokens.map(({ layers }, i) => {
            const byte = text[start + i + 1];
            return { byte, bits: bitsOf(logits, i, byte), layers };
          }),
        );
      }
      return null;
    } finally {
      stream.dispose();
    }
  },

  evaluate({ text, threshold }, { signal }) {
    return runtime.evaluate(text, { threshold, signal });
  },
};

/** Of the jobs that are under way. */
const aborts = new Map<number, AbortController>();

async function run<Job extends JobName>(id: number, job: Job, ask: Jobs[Job]['ask']): Promise<void> {
  const abort = new AbortController();
  aborts.set(id, abort);
  try {
    const tell = (part: Jobs[Job]['part']) => scope.postMessage({ id, part });
    const answer = await runners[job](ask, { signal: abort.signal, tell });
    scope.postMessage({ id, answer, usage: runtime.usage });
  } catch (error) {
    const { name, message } = error instanceof Error ? error : new Error(String(error));
    scope.postMessage({ id, failed: { name, message } });
  } finally {
    aborts.delete(id);
  }
}

scope.onmessage = ({ data }) => {
  if ('abort' in data) aborts.get(data.id)?.abort();
  else run(data.id, data.job, data.ask as Jobs[JobName]['ask']);
};

/** Held for as long as this worker lives: whoever gets it next knows that it has ended, which a browser says in no other way. */
if (navigator.locks) {
  navigator.locks.request(scope.name, () => {
    scope.postMessage({ ready: true });
    return new Promise(() => {});
  });
} else scope.postMessage({ ready: true });
