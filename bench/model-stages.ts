/**
 * Where does the time of a read go, on one thread? And do the XMoE layers turn fewer FLOPs into less time: theirs at the
 * threshold of the file over theirs with every expert, over the same in FLOPs? Each kernel call is timed, and what lies
 * between two of them is JS. The reads are those of model.ts, and the rows of the layers are the model's own.
 */
import type { ReadOptions, Stream } from 'xmoe/runtime';
import type { Row } from './measure.js';
import { watchMachine } from './quiet.js';
import { ALL, added, LAYERS, type Stages, stagesOf } from './read-stages.js';
import { recordKernelCalls } from './record.js';
import { emit, figures, note, table } from './report.js';
import { targetTable } from './targets.js';
import { shippedModel, textOf } from './texts.js';

// Before anything is compiled: the kernels of every runtime made from here on can be recorded.
const record = recordKernelCalls();
const { openVariant, variants } = await import('./readers/runtime.js');

/** The layers with every expert; and the ratio that is asked for. */
const EVERY_EXPERT = 'XMoE layers with every expert';
const RATIO = 'XMoE layers, time over FLOPs against every expert';

const CALLS = { unmeasured: 10, measured: 30 };
/** Bytes before those of a decode, and these. */
const [BEFORE, NUM_STEPS] = [128, 64];
const PROMPT = 256;
const { path } = shippedModel();

/** A kind of read: what is recorded of one turn of it. */
interface Kind {
  readonly name: string;
  take(stream: Stream, options: ReadOptions): Promise<Measured>;
}

interface Measured {
  readonly stages: Stages;
  readonly moeFlops: number;
}

const kinds: readonly Kind[] = [
  {
    name: `prompt of ${PROMPT}`,
    async take(stream, options) {
      stream.clear();
      return recordRead(stream, textOf(PROMPT), options);
    },
  },
  {
    name: `${NUM_STEPS} bytes after ${BEFORE}`,
    async take(stream, options) {
      const ids = textOf(BEFORE + NUM_STEPS);
      stream.clear();
      await stream.read(ids.subarray(0, BEFORE), options);
      const parts: Measured[] = [];
      for (let i = BEFORE; i < ids.length; i++) parts.push(await recordRead(stream, ids.subarray(i, i + 1), options));
      return {
        stages: added(parts.map(({ stages }) => stages)),
        moeFlops: parts.reduce((sum, { moeFlops }) => sum + moeFlops, 0),
      };
    },
  },
];

const noise = watchMachine();
const rows: Row[] = [];
for (const { name, options } of variants) {
  try {
    const runtime = await openVariant(path, { ...options, threads: 1 });
    const stream = runtime.stream();
    for (const kind of kinds) rows.push(...(await rowsOf(name, kind, stream)));
    runtime.dispose();
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

/** At the threshold and with every expert in turns; the stages are those at the threshold. */
async function rowsOf(name: string, kind: Kind, stream: Stream): Promise<Row[]> {
  const [chosen, all]: [Measured[], Measured[]] = [[], []];
  for (let i = 0; i < CALLS.unmeasured + CALLS.measured; i++) {
    const turn = [await kind.take(stream, {}), await kind.take(stream, { threshold: 'dense' })];
    if (i < CALLS.unmeasured) continue;
    chosen.push(turn[0]);
    all.push(turn[1]);
  }
  const stages = [...new Set(chosen.flatMap(({ stages }) => [...stages.keys()]))];
  const shape = `${kind.name}, ${name}`;
  const rowOf = (contender: string, samples: readonly number[], whole: number): Row => {
    const sorted = samples.toSorted((a, b) => a - b);
    const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))];
    const [medianMs, spread] = [at(0.5), [at(0.25), at(0.75)] as const];
    return { shape, contender, threads: 1, node: process.version, medianMs, spread, timesOurs: medianMs / whole };
  };
  const timesOf = (measured: readonly Measured[], stage: string) =>
    measured.map(({ stages }) => stages.get(stage) ?? 0);
  const whole = rowOf(ALL, timesOf(chosen, ALL), 1).medianMs;
  const [ofChosen, ofAll] = [chosen, all].map(measured => rowOf(LAYERS, timesOf(measured, LAYERS), 1).medianMs);
  const flopsShare = chosen[0].moeFlops / all[0].moeFlops;
  return [
    ...stages.map(stage => rowOf(stage, timesOf(chosen, stage), whole)),
    rowOf(EVERY_EXPERT, timesOf(all, LAYERS), whole),
    // Its "times ours" is what is asked for.
    { ...rowOf(RATIO, [ofChosen], 1), timesOurs: ofChosen / ofAll / flopsShare },
  ];
}

async function recordRead(stream: Stream, ids: Uint8Array, options: ReadOptions): Promise<Measured> {
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
