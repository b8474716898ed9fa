/** The second thread of `readerOnTwo`. */
import { workerData } from 'node:worker_threads';
import { DONE, FROM, readerOf, TO, TURN } from './stream.js';
import type { SharedMemory } from './wasm-module.js';

const { memory, streams, control } = workerData as { memory: SharedMemory; streams: 1 | 4; control: Int32Array };
const read = readerOf(memory, streams);
for (let turn = 0; ; ) {
  Atomics.wait(control, TURN, turn++);
  read(control[FROM], control[TO]);
  Atomics.store(control, DONE, turn);
  Atomics.notify(control, DONE);
}
