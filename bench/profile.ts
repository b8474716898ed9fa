/**
 * Where does the time of S1 go, on one thread? Each kernel call is timed, and what lies between two of them is JS: what it
 * is for follows from which two.
 */
import type { Row } from './measure.js';
import { watchMachine } from './quiet.js';
import { type KernelCall, type Recording, recordKernelCalls } from './record.js';
import { emit, figures, note, table } from './report.js';
import { shapeNamed } from './shapes.js';
import { targetTable } from './targets.js';

// Before anything is compiled: the kernels of every backend made from here on can be recorded.
const record = recordKernelCalls();
const { wasm } = await import('./contenders/wasm.js');
const { layerOf } = await import('./layers.js');

const CALLS = { unmeasured: 30, measured: 40 };
const shape = shapeNamed('shape', 'S1');
const layer = layerOf(shape, 'threshold');

const noise = watchMachine();
const rows: Row[] = [];
for (const { name, open } of wasm) {
  try {
    const { run, close } = await open(layer, 1);
    for (let i = 0; i < CALLS.unmeasured; i++) run(0);
    const calls = Array.from({ length: CALLS.measured }, () => stagesOf(record.during(() => run(0))));
    rows.push(...rowsOf(name, calls));
    await close();
  } catch (error) {
    note(`${name} left out: ${(error as Error).message}`);
  }
}
note(`${shape.name}: ${noise().text}`);
emit(rows, shareTable, () => targetTable({ profile: rows }));

/** The time of each stage in one call, and of all, in ms. */
function stagesOf({ kernels, start, end }: Recording): Map<string, number> {
  const stages = new Map([['all', end - start]]);
  const add = (stage: string, ms: number) => stages.set(stage, (stages.get(stage) ?? 0) + ms);
  let [before, last] = [undefined as string | undefined, start];
  for (const [i, kernel] of kernels.entries()) {
    const stage = stageOf(kernel, kernels, i);
    add(stageBetween(before, stage), kernel.start - last);
    add(stage, kernel.end - kernel.start);
    [before, last] = [stage, kernel.end];
  }
  add('copy out', end - last);
  return stages;
}

/** What a kernel is for. Of the two products of an expert, the first is the one that an activation follows. */
function stageOf({ name }: KernelCall, kernels: readonly KernelCall[], i: number): string {
  if (/^route/.test(name)) return 'routing';
  if (/^softmax/.test(name)) return 'softmax';
  if (/^(select|place)/.test(name)) return 'dispatch';
  if (/^combine/.test(name)) return 'combine';
  if (/^activate/.test(name)) return 'activation';
  if (/^quantize/.test(name)) return 'rows to integers';
  if (!/^product/.test(name)) return name;
  const next = kernels.slice(i).find(kernel => /^(activate|combine)/.test(kernel.name));
  return next && /^activate/.test(next.name) ? 'up product' : 'down product';
}

function stageBetween(before: string | undefined, after: string): string {
  if (before === undefined) return 'checks, copy in';
  const ofRouter = ['routing', 'softmax'];
  if (ofRouter.includes(after)) return after;
  return [...ofRouter, 'dispatch'].includes(before) ? 'dispatch' : 'between kernels';
}

function rowsOf(name: string, calls: readonly Map<string, number>[]): Row[] {
  const stages = [...new Set(calls.flatMap(call => [...call.keys()]))];
  const all = calls.map(call => call.get('all')!).sort((a, b) => a - b)[calls.length >> 1];
  return stages.map(contender => {
    const samples = calls.map(call => call.get(contender) ?? 0).sort((a, b) => a - b);
    const at = (share: number) => samples[Math.round(share * (samples.length - 1))];
    const [medianMs, spread] = [at(0.5), [at(0.25), at(0.75)] as const];
    const { version: node } = process;
    return {
      shape: `${shape.name}, ${name}`,
      contender,
      threads: 1,
      node,
      medianMs,
      spread,
      timesOurs: medianMs / all,
    };
  });
}

/** A line for each stage, a column for each layer: median ms and share. */
function shareTable(): string[] {
  const [stages, layers] = [rows.map(({ contender }) => contender), rows.map(({ shape }) => shape)].map(names => [
    ...new Set(names),
  ]);
  const cells = stages.map(stage => [
    stage,
    ...layers.map(layer => {
      const row = rows.find(({ shape, contender }) => shape === layer && contender === stage);
      return row ? `${figures(row.medianMs)}, ${(100 * row.timesOurs).toFixed(1)} %` : '';
    }),
  ]);
  return ['Median ms, share of all:', '', ...table(['stage', ...layers], cells, 1)];
}
