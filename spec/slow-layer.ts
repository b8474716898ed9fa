/** A backend of two threads with a layer whose calls take a while: for tests of what happens meanwhile. */

import { layerOfSizes } from 'xmoe/cases';
import { wasmBackend } from 'xmoe/wasm';
import { bits } from './bits.js';
import { startedWorkers } from './environment.js';

export const withThreads = (threads: number) => wasmBackend({ deterministic: true, threads });

const one = await withThreads(1);

/** The backend, the layer, its input, and the y that one thread gives. */
export async function slowLayer() {
  const { x, weights, config } = layerOfSizes(300, 8, 200, 120);
  const before = startedWorkers.length;
  const backend = await withThreads(2);
  return {
    backend,
    layer: backend.load(weights, config),
    x,
    expected: bits(one.load(weights, config).forward(x)),
    /** Of this backend, the worker that was started last. */
    newest: () => startedWorkers.slice(before).at(-1)!,
  };
}

/** Lets all go on that waits for nothing but promises: a `forwardAsync` begins, and cannot end before this does. */
export async function begun(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await undefined;
}
