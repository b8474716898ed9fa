/** What the backend is to reach, as ratios within one run, and whether it did. */
import type { Row } from './measure.js';
import { figures, table } from './report.js';

/** The rows of each bench that ran: `native` is `kernels` with V8 told to join vectors; those of `memory` have bytes, and no target. */
export type Runs = Readonly<Partial<Record<Program, readonly Row[]>>>;
export type Program =
  | 'layer'
  | 'sparsity'
  | 'threads'
  | 'profile'
  | 'decode'
  | 'kernels'
  | 'native'
  | 'kernels-model'
  | 'growth'
  | 'selection'
  | 'model'
  | 'stages'
  | 'memory'
  | 'reference';

interface Target {
  readonly measure: string;
  readonly program: Program;
  /** Without a row of it the target is not spoken of. */
  readonly shape?: string;
  /** The value is to be at least this, or at most. */
  readonly wanted: readonly ['≥' | '≤', number];
  /** Undefined where a row is missing. */
  readonly value: (rows: readonly Row[]) => number | undefined;
  /** The first Node that it is wanted on. */
  readonly fromNode?: number;
  readonly unit: 'x' | '%';
}

const RELAXED = /^xmoe\/wasm relaxed$/;
const SIMD = /^xmoe\/wasm simd$/;
const REVECTORIZED = /^xmoe\/wasm (relaxed|simd) revectorized$/;
const F32 = /^xmoe\/wasm (relaxed|simd)( revectorized)?$/;
const INT8 = /^xmoe\/wasm int8$/;
const INT8_REVECTORIZED = /^xmoe\/wasm int8 revectorized$/;
const MODEL_F32 = /^xmoe\/runtime (relaxed|simd)( revectorized)?$/;
const WEB = /^onnxruntime-web/;
const NODE = /^onnxruntime-node/;

/** How often ours goes into theirs, the best of each, one thread. */
function against(measure: string, shape: string, ours: RegExp, theirs: RegExp, least: number, fromNode = 0): Target {
  return {
    ...{ measure: `${shape}: ${measure}`, program: 'layer', shape, wanted: ['≥', least], unit: 'x', fromNode },
    value: rows => ratio(best(rows, shape, theirs), best(rows, shape, ours)),
  };
}

/** How often ours goes into theirs, float32, the best of each: the least of the shapes. */
function ofModel(shapes: RegExp, theirs: RegExp, least: number, threads: number): Target {
  const [what, who] = [shapes.source.slice(1), theirs.source.slice(1)];
  return {
    measure: `language model, ${what}, threads ${threads}: f32, against ${who}`,
    ...{ program: 'model', wanted: ['≥', least], unit: 'x' },
    value: rows => {
      const names = new Set(rows.map(({ shape }) => shape).filter(shape => shapes.test(shape)));
      const ratios = [...names].map(shape =>
        ratio(best(rows, shape, theirs, threads), best(rows, shape, MODEL_F32, threads)),
      );
      const known = ratios.filter(value => value !== undefined);
      return known.length > 0 ? Math.min(...known) : undefined;
    },
  };
}

/** The XMoE layers of the model, time over FLOPs at the threshold and with every expert: of what a user gets without an option. */
function ofLayers(kind: RegExp): Target {
  const ratioOf = ({ shape, contender }: Row) =>
    kind.test(shape) && / relaxed$/.test(shape) && / over FLOPs /.test(contender);
  return {
    measure: `language model, XMoE layers, ${kind.source.replace('^', '')}: time over FLOPs, over the same with every expert`,
    ...{ program: 'stages', wanted: ['≤', 1.1], unit: 'x' },
    value: rows => rows.find(ratioOf)?.timesOurs,
  };
}

/** A share of a whole, both of the same work. */
function share(measure: string, program: Program, ours: RegExp, whole: RegExp, least: number, fromNode = 0): Target {
  return {
    ...{ measure, program, wanted: ['≥', least], unit: '%', fromNode },
    // The best of the shapes of one expert, whose weights are in the caches: what its rows are enough for.
    value: rows => {
      const shapes = new Set(rows.map(({ shape }) => shape).filter(shape => shape.startsWith('1 x ')));
      const shares = [...shapes].map(shape => ratio(best(rows, shape, whole), best(rows, shape, ours)));
      const known = shares.filter(value => value !== undefined);
      return known.length > 0 ? 100 * Math.max(...known) : undefined;
    },
  };
}

const targets: readonly Target[] = [
  against('relaxed, against onnxruntime-web', 'S1', RELAXED, WEB, 2),
  against('simd, against onnxruntime-web', 'S1', SIMD, WEB, 1.5),
  against('f32 revectorized, against onnxruntime-web', 'S1', REVECTORIZED, WEB, 2.5, 24),
  against('f32 revectorized, against onnxruntime-node', 'S1', REVECTORIZED, NODE, 1.1, 24),
  against('int8, against onnxruntime-node (f32)', 'S1', INT8, NODE, 1.8, 24),
  against('int8 revectorized, against onnxruntime-node (f32)', 'S1', INT8_REVECTORIZED, NODE, 2.5, 24),
  against('relaxed, against onnxruntime-web', 'S4', RELAXED, WEB, 1.6),
  against('f32 revectorized, against onnxruntime-web', 'S4', REVECTORIZED, WEB, 2.4, 24),
  against('f32, against onnxruntime-web', 'S3', F32, WEB, 2),
  against('f32, against onnxruntime-node', 'S3', F32, NODE, 1.3),
  against('int8, against onnxruntime-web (f32)', 'S3', /^xmoe\/wasm int8/, WEB, 5, 24),
  against('int8, against onnxruntime-node (f32)', 'S3', /^xmoe\/wasm int8/, NODE, 3.5, 24),
  against('f32, against tfjs-wasm with weights laid out for it', 'S1', F32, /^tfjs-wasm$/, 8),
  against('f32, against tfjs-wasm with weights as they are', 'S1', F32, /^tfjs-wasm transposeB$/, 8),
  {
    ...{ measure: 'S1 over S4 in time, over the same in FLOPs: relaxed', program: 'sparsity', unit: 'x' },
    ...{ wanted: ['≤', 1.05], value: rows => sparsity(rows, RELAXED) },
  },
  {
    ...{ measure: 'S1 over S4 in time, over the same in FLOPs: relaxed revectorized', program: 'sparsity', unit: 'x' },
    ...{ wanted: ['≤', 1.05], fromNode: 24, value: rows => sparsity(rows, /^xmoe\/wasm relaxed revectorized$/) },
  },
  {
    ...{ measure: 'S1: two threads over one, relaxed', program: 'threads', wanted: ['≥', 1.85], unit: 'x' },
    value: rows => ratio(best(rows, 'S1', RELAXED, 1), best(rows, 'S1', RELAXED, 2)),
  },
  share(
    'experts in cache, share of registers alone, relaxed',
    'kernels',
    /^experts, relaxed/,
    /^registers.*relaxed/,
    95,
  ),
  share('relaxed revectorized, share of native 256-bit FMA', 'native', /^experts, relaxed/, /alone, native/, 85, 24),
  share('simd revectorized, share of native 256-bit FMA', 'native', /^experts, simd/, /alone, native/, 62, 24),
  {
    ...{ measure: 'S1: routing, dispatch and separate combine, share of the time', program: 'profile', unit: '%' },
    ...{ wanted: ['≤', 6], value: rows => overhead(rows) },
  },
  ...[/^prompt/, /^byte/].flatMap(shape => [1, 2].map(threads => ofModel(shape, WEB, 2, threads))),
  ...[1, 2].map(threads => ofModel(/^byte/, NODE, 1, threads)),
  ...[/^prompt/, /bytes after/].map(ofLayers),
];

/** Of the programs that ran, every target: what was measured, what is wanted; with several Nodes, a column for each. */
export function targetTable(...nodes: readonly Runs[]): string[] {
  const cells = targets.flatMap(target => {
    const { measure, program, shape, wanted } = target;
    const hasRun = nodes.some(runs => runs[program]?.some(row => shape === undefined || row.shape === shape));
    if (!hasRun) return [];
    return [[measure, `${wanted[0]} ${shown(target, wanted[1])}`, ...nodes.map(runs => verdict(target, runs))]];
  });
  const versions = nodes.map(runs => Object.values(runs).find(rows => rows.length > 0)?.[0].node ?? '');
  return cells.length > 0 ? table(['measure', 'target', ...versions], cells, 1) : [];
}

function verdict(target: Target, runs: Runs): string {
  const { program, wanted, value, fromNode = 0 } = target;
  const rows = runs[program] ?? [];
  if (rows.length === 0) return '–';
  if (Number(rows[0].node.slice(1).split('.')[0]) < fromNode) return `from Node ${fromNode} on`;
  const measured = value(rows);
  if (measured === undefined) return '–';
  const isMet = wanted[0] === '≥' ? measured >= wanted[1] : measured <= wanted[1];
  return `${shown(target, measured)}, ${isMet ? 'met' : '**missed**'}`;
}

function shown({ unit }: Target, value: number): string {
  return unit === 'x' ? `${value.toFixed(2)}x` : `${figures(value)} %`;
}

/** The least median of those at a shape. */
function best(rows: readonly Row[], shape: string, who: RegExp, threads = 1): number | undefined {
  const medians = rows
    .filter(row => row.shape === shape && row.threads === threads && who.test(row.contender))
    .map(({ medianMs }) => medianMs);
  return medians.length > 0 ? Math.min(...medians) : undefined;
}

function ratio(above: number | undefined, below: number | undefined): number | undefined {
  return above === undefined || below === undefined ? undefined : above / below;
}

/** S1 does half of the FLOPs of S4: 4 experts of 384 against 3,072. */
function sparsity(rows: readonly Row[], who: RegExp): number | undefined {
  const inTime = ratio(best(rows, 'S1', who), best(rows, 'S4', who));
  return inTime === undefined ? undefined : inTime / ((4 * 384) / 3072);
}

/** The stages that are not the experts' products, which profile.ts names: the larger share of the two. */
function overhead(rows: readonly Row[]): number | undefined {
  const shares = ['simd', 'relaxed'].map(target => {
    const own = rows.filter(({ shape }) => shape === `S1, xmoe/wasm ${target}`);
    const parts = own.filter(({ contender }) => /^(routing|softmax|dispatch|combine)$/.test(contender));
    return own.length > 0 ? 100 * parts.reduce((sum, { timesOurs }) => sum + timesOurs, 0) : undefined;
  });
  const known = shares.filter(share => share !== undefined);
  return known.length > 0 ? Math.max(...known) : undefined;
}
