/**
 * Where does the time of a read go, on one thread? And do the XMoE layers turn fewer FLOPs into less time: theirs at the
 * threshold of the file over theirs with every expert, over the same in FLOPs? For the first each kernel call is timed, and
 * what lies between two of them is JS; for the second, which that would slow down, only those around the layers. The reads
 * are those of model.ts, and the rows of the layers are the model's own.
 */
import type { ReadOptions, Stream } from 'xmoe/runtime';
import { quantile, type Row } from './measure.js';
import { watchMachine } from './quiet.js';
import { ALL, AROUND_LAYERS, LAYERS, type Stages, stagesOf } from './read-stages.js';
import { recordKernelCalls } from './record.js';
import { emit, figures, note, table } from './report.js';
import { targetTable } from './targets.js';
import { shippedModel, textOf } from './texts.js';

// Before anything is compiled: the kernels of every runtime made from here on can be recorded.
const record = recordKernelCalls();
const { openVariant, variants } = await import('./readers/runtime.js');

/** The layers with little recorded, so that this takes no time; and the ratio that is asked for. */
const CHOSEN_EXPERTS = 'XMoE layers, recorded as a whole';
const EVERY_EXPERT = 'XMoE layers with every expert';
const RATIO = 'XMoE layers, time over FLOPs against every expert';

const TURNS = { unmeasured: 60, measured: 30 };
/** Bytes before those of a decode, and these. */
const [BEFORE, NUM_STEPS] = [128, 64];
const PROMPT = 256;
const { path } = shippedModel();

/** A kind of read, and what is recorded of one turn of it: the same reads each time. */
interface Kind {
  readonly name: string;
  take(stream: Stream, options: ReadOptions): Promise<Recorded[]>;
}

interface Recorded {
  readonly stages: Stages;
  readonly moeFlops: number;
}

const kinds: readonly Kind[] = [
  {
    name: `prompt of ${PROMPT}`,
    async take(stream, options) {
      stream.clear();
      return [await recordRead(stream, textOf(PROMPT), options)];
    },
  },
  {
    name: `${NUM_STEPS} bytes after ${BEFORE}`,
    async take(stream, options) {
      const ids = textOf(BEFORE + NUM_STEPS);
      stream.clear();
      await stream.read(ids.subarray(0, BEFORE), options);
      const reads: Recorded[] = [];
      for (let i = BEFORE; i < ids.length; i++) reads.push(await recordRead(stream, ids.subarray(i, i + 1), options));
      return reads;
    },
  },
];

const noise = watchMachine();
const rows: Row[] = [];
for (const { name, options } of variants) {
  try {
    record.only(/^/);
    const inStages = await openVariant(path, { ...options, threads: 1 });
    record.only(AROUND_LAYERS);
    const inAll = await openVariant(path, { ...options, threads: 1 });
    for (const kind of kinds) {
      const shape = `${kind.name}, ${name}`;
      rows.push(...(await stageRows(shape, kind, inStages.stream())));
      rows.push(...(await layerRows(shape, kind, inAll.stream())));
    }
    for (const runtime of [inStages, inAll]) runtime.dispose();
  } catch (error) {
    note(`${name} left out: ${(error as Error).message}`);
  }
}
note(`stages: ${noise().text}`);
emit(
  rows,
  () => kinds.flatMap(stageTable),
  () => targetTable({ stages: rows }),
);

/** Where the time goes at the threshold. */
async function stageRows(shape: string, kind: Kind, stream: Stream): Promise<Row[]> {
  const [chosen] = await turnsOf(kind, stream, [{}]);
  const stages = new Set(chosen.flatMap(reads => reads.flatMap(({ stages }) => [...stages.keys()])));
  const whole = sumOfQuantiles(chosen, ALL, 0.5);
  return Array.from(stages, stage => rowOf(shape, stage, chosen, stage, whole));
}

/** The XMoE layers at the threshold and with every expert, in turns. */
async function layerRows(shape: string, kind: Kind, stream: Stream): Promise<Row[]> {
  const [chosen, every] = await turnsOf(kind, stream, [{}, { threshold: 'dense' }]);
  const [inTime, inFlops] = [
    sumOfQuantiles(chosen, LAYERS, 0.5) / sumOfQuantiles(every, LAYERS, 0.5),
    flopsOf(chosen) / flopsOf(every),
  ];
  const whole = sumOfQuantiles(chosen, ALL, 0.5);
  return [
    rowOf(shape, CHOSEN_EXPERTS, chosen, LAYERS, whole),
    rowOf(shape, EVERY_EXPERT, every, LAYERS, whole),
    // Its "times ours" is what is asked for.
    { ...rowOf(shape, RATIO, chosen, LAYERS, whole), timesOurs: inTime / inFlops },
  ];
}

/** Of each of these options the measured turns. */
async function turnsOf(kind: Kind, stream: Stream, options: readonly ReadOptions[]): Promise<Recorded[][][]> {
  const turns: Recorded[][][] = options.map(() => []);
  for (let i = 0; i < TURNS.unmeasured + TURNS.measured; i++) {
    for (const [which, own] of options.entries()) {
      const turn = await kind.take(stream, own);
      if (i >= TURNS.unmeasured) turns[which].push(turn);
    }
  }
  return turns;
}

function rowOf(shape: string, contender: string, turns: readonly Recorded[][], stage: string, whole: number): Row {
  const [low, medianMs, high] = [0.25, 0.5, 0.75].map(share => sumOfQuantiles(turns, stage, share));
  const spread: [number, number] = [low, high];
  return { shape, contender, threads: 1, node: process.version, medianMs, spread, timesOurs: medianMs / whole };
}

function flopsOf([reads]: readonly Recorded[][]): number {
  return reads.reduce((sum, { moeFlops }) => sum + moeFlops, 0);
}

/** The sum over the reads of a turn of what a stage took in each, at this share of the way through all turns. */
function sumOfQuantiles(turns: readonly Recorded[][], stage: string, share: number): number {
  return turns[0].reduce((sum, _, read) => {
    const samples = turns.map(reads => reads[read].stages.get(stage) ?? 0).sort((a, b) => a - b);
    return sum + quantile(samples, share);
  }, 0);
}

async function recordRead(stream: Stream, ids: Uint8Array, options: ReadOptions): Promise<Recorded> {
  let moeFlops = 0;
  const recording = await record.duringAsync(async () => {
    const { tokens } = await stream.read(ids, { ...options, logits: 'last' });
    moeFlops = tokens.reduce((sum, token) => sum + token.moeFlops, 0);
  });
  return { stages: stagesOf(recording), moeFlops };
}

/** A line for each stage, a column for each runtime: median ms and share. */
function stageTable({ name }: Kind): string[] {
  const own = rows.filter(({ shape }) => shape.startsWith(name));
  const [stages, shapes] = [own.map(({ contender }) => contender), own.map(({ shape }) => shape)].map(names => [
    ...new Set(names),
  ]);
  const cells = stages.map(stage => [
    stage,
    ...shapes.map(shape => {
      const row = own.find(row => row.shape === shape && row.contender === stage);
      if (!row) return '';
      return stage === RATIO
        ? `${row.timesOurs.toFixed(2)}x`
        : `${figures(row.medianMs)}, ${(100 * row.timesOurs).toFixed(1)} %`;
    }),
  ]);
  const titles = shapes.map(shape => shape.slice(name.length + 2));
  return [`${name}: median ms, share of all:`, '', ...table(['stage', ...titles], cells, 1), ''];
}
