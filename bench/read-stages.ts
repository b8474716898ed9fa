/** What each kernel call of a read is for, told by their order, and what the JS between two of them is. */
import type { KernelCall, Recording } from './record.js';

/** Milliseconds of each stage. */
export type Stages = ReadonlyMap<string, number>;

/** All of a read, and of that the XMoE layers, their JS included. */
export const [ALL, LAYERS] = ['all', 'XMoE layers, all of them'];

export function stagesOf({ kernels, start, end }: Recording): Stages {
  const stages = new Map([[ALL, end - start]]);
  const add = (stage: string, ms: number) => stages.set(stage, (stages.get(stage) ?? 0) + ms);
  const parts = partsOf(kernels);
  let last = start;
  for (const [i, kernel] of kernels.entries()) {
    const isWithin = parts[i] === LAYERS && !isNorm(kernel);
    add(i === 0 ? 'JS before the first kernel' : isWithin ? 'XMoE: JS' : 'JS between kernels', kernel.start - last);
    const ms = kernel.end - kernel.start;
    add(stageOf(kernel, parts[i]), ms);
    if (isWithin) add(LAYERS, kernel.end - last);
    last = kernel.end;
  }
  add('JS after the last kernel', end - last);
  return stages;
}

/** For each call the part of the model that it belongs to. Each part begins with a norm, and its other kernels tell which it is. */
function partsOf(kernels: readonly KernelCall[]): string[] {
  const parts: string[] = new Array(kernels.length).fill('');
  const starts = kernels.flatMap((kernel, i) => (isNorm(kernel) ? [i] : []));
  starts.forEach((first, n) => {
    const next = starts[n + 1] ?? kernels.length;
    const has = (prefix: string) => kernels.slice(first, next).some(({ name }) => name.startsWith(prefix));
    const name = has('attend') ? 'attention' : has('route') ? LAYERS : has('activate') ? 'dense FFNs' : 'head';
    parts.fill(name, first, next);
  });
  return parts;
}

function stageOf(kernel: KernelCall, part: string): string {
  if (isNorm(kernel)) return 'norms';
  if (part === LAYERS) {
    if (/^(route|softmax)/.test(kernel.name)) return 'XMoE: router';
    return /^(select|place)/.test(kernel.name) ? 'XMoE: decisions' : 'XMoE: experts';
  }
  if (part !== 'attention') return part;
  return /^(attend|store_heads)/.test(kernel.name) ? 'attention: cache, scores, values' : 'attention: products';
}

/** Enough to tell how long the XMoE layers take, all in all: what they begin after, with and end with. */
export const AROUND_LAYERS = /^(add_norm|route|combine)/;

function isNorm({ name }: KernelCall): boolean {
  return /^add_norm/.test(name);
}
