/** The thread of an ES module that `xmoe check` asks: it loads the module, and answers one call after another. */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parentPort, workerData } from 'node:worker_threads';
import type { NamedTensor } from '../layer-case/index.js';
import { type Arithmetic, adopt, type Implementation, type LayerCall } from '../oracle/index.js';

export interface ModuleSource {
  readonly path: string;
  readonly arithmetic: Arithmetic | undefined;
}

/** What is said of the module once it is loaded. */
export type Loaded =
  | { readonly name: string; readonly arithmetic: Arithmetic }
  | { readonly failed: { readonly type: 'TypeError' | 'RangeError'; readonly message: string } };

/** A call; the one before again, as the very same object, by which a module may remember it; or no more. */
export interface Question {
  readonly call: LayerCall | 'again' | 'no more';
}

export type Answer =
  | { readonly outputs: readonly (readonly [string, NamedTensor])[]; readonly call: LayerCall }
  | { readonly refused: string }
  | { readonly error: { readonly name: string; readonly message: string; readonly kind?: string } };

const port = parentPort!;
const { path, arithmetic } = workerData as ModuleSource;

async function load(): Promise<Implementation> {
  let exported: unknown;
  try {
    exported = (await import(pathToFileURL(resolve(path)).href)).default;
  } catch (error) {
    throw new TypeError(`"--backend" expected a module that loads, got ${(error as Error).message}`);
  }
  return adopt(exported, path, arithmetic);
}

async function answerTo(implementation: Implementation, call: LayerCall): Promise<Answer> {
  try {
    const refused = implementation.refuses?.(call);
    if (refused !== undefined) return { refused };
    const outputs = await implementation.run(call);
    // of their own memory: a view would take all that it looks into along
    return { outputs: Array.from(outputs, ([name, { shape, data }]) => [name, { shape, data: copied(data) }]), call };
  } catch (error) {
    const { name, message, kind } = (error instanceof Error ? error : new Error(String(error))) as Error & {
      kind?: string;
    };
    return { error: { name, message, ...(typeof kind === 'string' && { kind }) } };
  }
}

function copied(data: NamedTensor['data']): NamedTensor['data'] {
  if (data instanceof Float64Array) return Float64Array.from(data);
  return data instanceof Float32Array ? Float32Array.from(data) : Uint8Array.from(data);
}

try {
  const implementation = await load();
  let last: LayerCall | undefined;
  port.on('message', async ({ call }: Question) => {
    if (call === 'no more') {
      await implementation.close?.();
      port.close();
      return;
    }
    last = call === 'again' ? last : call;
    port.postMessage(await answerTo(implementation, last!));
  });
  port.postMessage({ name: implementation.name, arithmetic: implementation.arithmetic } satisfies Loaded);
} catch (error) {
  const { name, message } = error as Error;
  port.postMessage({ failed: { type: name === 'RangeError' ? name : 'TypeError', message } } satisfies Loaded);
}
