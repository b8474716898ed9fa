/** Work that may be split among threads: kernel calls, written down in memory for whoever takes them. */
import type { WasmInstance } from './engine.js';
import type { Kernels } from './kernels.js';
import type { Memory } from './memory.js';

/** Those of loops, whose arguments are written down as words: `select_f32` takes a float64. */
type KernelName = Exclude<keyof Kernels, 'select_f32'>;

/** A kernel and its arguments. */
export type Call = { [K in KernelName]: readonly [K, ...Parameters<Kernels[K]>] }[KernelName];

/** Calls in order. */
export type Task = readonly Call[];

/** Tasks that may run at once, or in any order: none reads or writes what another writes. */
export type Loop = readonly Task[];

/** Multiply-adds that are done sooner than another thread is there to help. */
export const FEW = 2 ** 20;

/** Tasks to share, or one of them all where there is too little to do. */
export function split(tasks: readonly Task[], multiplyAdds: number): Loop {
  return tasks.length > 1 && multiplyAdds < FEW ? [tasks.flat()] : tasks;
}

/** Loops one after another, in as few as can be: neighbours of one task each become one, and on one thread all do. */
export function inSequence(loops: readonly Loop[], numThreads: number): Loop[] {
  if (numThreads === 1) {
    const all: Call[] = [];
    for (const loop of loops) for (const task of loop) all.push(...task);
    return [[all]];
  }
  const joined: Loop[] = [];
  let isOpen = false; // whether the last one is of one task
  for (const loop of loops) {
    if (loop.length === 0) continue;
    if (loop.length === 1 && isOpen) joined.push([[...joined.pop()![0], ...loop[0]]]);
    else joined.push(loop);
    isOpen = loop.length === 1;
  }
  return joined;
}

/** 0 … n in pieces of `size`, the last one smaller: where each begins, and how many it has. */
export function cut(n: number, size: number): [number, number][] {
  const pieces: [number, number][] = [];
  for (let first = 0; first < n; first += size) pieces.push([first, Math.min(size, n - first)]);
  return pieces;
}

/** All of a loop, task after task, on the calling thread. */
export function performAlone(kernels: Kernels, loop: Loop): void {
  for (const task of loop) for (const call of task) perform(kernels, call);
}

/** Nothing is made of a call's arguments but the call: bytes of a text are many small calls. */
export function perform(kernels: Kernels, call: Call): void {
  const c: HandedOn = call;
  const kernel = kernels[c[0]] as (...args: (number | undefined)[]) => void;
  // A kernel does not see arguments beyond its own.
  kernel(c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11], c[12], c[13]);
}

/** No kernel has more arguments. */
type HandedOn = readonly [KernelName, ...Partial<Thirteen>];
// biome-ignore format: thirteen
type Thirteen = [number, number, number, number, number, number, number, number, number, number, number, number, number];

/** A kernel's number: its place among the exports of the module, the same for each instance. */
export function kernelList(kernels: Kernels): ((...args: number[]) => void)[] {
  return Object.values(kernels as unknown as WasmInstance['exports']) as ((...args: number[]) => void)[];
}

/**
 * Writes a loop into the call's memory, as `takeTasks` of worker.ts reads it: where each task starts, and where the last
 * one ends; then of each call its kernel's number, the number of arguments, and the arguments. Positions count words from
 * the start of the memory.
 *
 * @returns the position of the loop
 */
export function putLoop(memory: Memory, kernels: Kernels, loop: Loop): number {
  const numbers = new Map(Object.keys(kernels).map((name, i) => [name, i]));
  const written: number[] = [];
  const starts = loop.map(task => {
    const start = written.length;
    for (const [name, ...args] of task) written.push(numbers.get(name)!, args.length, ...args);
    return start;
  });
  const ptr = memory.allocate(4 * (starts.length + 1 + written.length));
  const firstCall = ptr / 4 + starts.length + 1;
  const words = memory.words(ptr, starts.length + 1 + written.length);
  words.set([...starts, written.length].map(start => firstCall + start));
  words.set(written, starts.length + 1);
  return ptr / 4;
}
