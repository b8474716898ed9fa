/** A read of memory in WebAssembly and nothing else: what a decode, which reads each weight once, can reach at most. */
import { Worker } from 'node:worker_threads';
import * as module from './wasm-module.js';
import { instantiate } from './wasm-module.js';

/** Where the two threads meet: words of a shared array. */
export const [TURN, DONE, FROM, TO] = [0, 1, 2, 3];

/** Vectors of a stream in one step. */
const STEP = 8;

/** Adds up the bytes in [from, to) of `memory`, a multiple of 512, in so many streams side by side. */
export type Read = (from: number, to: number) => number;

export function readerOf(memory: module.SharedMemory, streams: 1 | 4): Read {
  const { read } = instantiate(moduleOf(streams), memory) as { read(...numbers: number[]): number };
  return (from, to) => {
    const each = (to - from) / streams;
    return read(from + each, from, from + each, from + 2 * each, from + 3 * each);
  };
}

/** The same on two threads, each of which reads a half. @returns the call, and what ends the other thread */
export function readerOnTwo(memory: module.SharedMemory, streams: 1 | 4): { read: Read; close: () => void } {
  const control = new Int32Array(new SharedArrayBuffer(16));
  const worker = new Worker(new URL('./stream-worker.js', import.meta.url), {
    workerData: { memory, streams, control },
  });
  const own = readerOf(memory, streams);
  return {
    read(from, to) {
      const middle = (from + to) / 2;
      control[FROM] = middle;
      control[TO] = to;
      const turn = Atomics.add(control, TURN, 1) + 1;
      Atomics.notify(control, TURN);
      const sum = own(from, middle);
      while (Atomics.load(control, DONE) !== turn) Atomics.wait(control, DONE, turn - 1);
      return sum;
    },
    close: () => void worker.terminate(),
  };
}

/** read(end, p0, p1, p2, p3): from p0 to `end` in steps, and as far from the others. */
function moduleOf(streams: number): Uint8Array {
  const { simd, GET, SET, TEE } = module;
  const [END, POINTER, SUM] = [0, 1, 5];
  const vectors = Array.from({ length: STEP }, (_, i) => i);
  const ADD = simd(0xae, 0x01); // i32x4.add
  const addUp = (stream: number) =>
    vectors.flatMap(i => {
      const load = [GET, POINTER + stream, ...simd(0x00, 4, ...module.leb(16 * i))]; // v128.load of 16-byte alignment
      return [...load, GET, SUM + i, ...ADD, SET, SUM + i];
    });
  const advance = (stream: number) => [GET, POINTER + stream, 0x41, ...module.leb(16 * STEP), 0x6a];
  const all = Array.from({ length: streams }, (_, s) => s);
  return module.moduleOf('read', 5, [
    ...[1, STEP, 0x7b], // locals: sums, v128
    ...[0x03, 0x40], // loop
    ...all.flatMap(addUp),
    ...all.slice(1).flatMap(s => [...advance(s), SET, POINTER + s]),
    ...[...advance(0), TEE, POINTER, GET, END, 0x49, 0x0d, 0], // again while p0 < end
    0x0b,
    ...[GET, SUM, ...vectors.slice(1).flatMap(i => [GET, SUM + i, ...ADD]), ...simd(0x1b, 0)], // lane 0 of their sum
    0x0b,
  ]);
}
