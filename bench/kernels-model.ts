/**
 * What share of the most that a core can do do the language model's kernels reach? Attention of one layer over a context of
 * 256 positions, where a prompt's last 64 rows are read at once, and where one byte is; and the norm of those rows, which
 * is counted as the bytes that it reads and writes. One thread. The most is what the engine gets out of registers alone.
 */
import { attendScratchBytes, headCacheBytes, keysBytes } from '../spec/internals.js';
import { type Kernels, loadKernels, memoryOf, type Target, targets } from '../spec/kernels.js';
import { compare, type Row } from './measure.js';
import { FLOPS, peak } from './peak.js';
import { emit, tableOf } from './report.js';

const CONTEXT = 256;
const D_MODEL = 512;
const EPS_AT = 2 * D_MODEL;

const attentions = [32, 64].flatMap(headWidth => [1, 64].map(numRows => ({ headWidth, numRows })));
type Attention = (typeof attentions)[number];
const heights = [1, 64];

/** The products with the keys that a row sees, and the sums of as many values: a multiply and an add are two. */
function flopsOf({ numRows }: Attention): number {
  const seen = Array.from({ length: numRows }, (_, i) => CONTEXT - i).reduce((sum, n) => sum + n, 0);
  return 4 * D_MODEL * seen;
}

/** The arrays of one layer in a memory of its own, in small numbers: no exponential is tiny, and nothing overflows. */
function layer(target: Target) {
  const cacheBytes = Math.max(...attentions.map(of => headCacheBytes(CONTEXT, of.headWidth, D_MODEL / of.headWidth)));
  const rowsBytes = 4 * CONTEXT * D_MODEL;
  const sizes = [cacheBytes, rowsBytes, rowsBytes, rowsBytes, 4 * (EPS_AT + 1), attendScratchBytes(CONTEXT)];
  const starts = sizes.map((_, i) => 64 + sizes.slice(0, i).reduce((sum, size) => sum + Math.ceil(size / 64) * 64, 0));
  const memory = memoryOf(starts.at(-1)! + sizes.at(-1)!);
  const floats = new Float32Array(memory.buffer);
  for (let i = 0; i < floats.length; i++) floats[i] = ((i * 7919) % 17) / 16 - 0.5;
  const kernels = loadKernels(target, memory);
  return kernels && runs(kernels, starts);
}

function runs(kernels: Kernels, [cache, q, add, out, norm, scratch]: readonly number[]) {
  return {
    attend({ headWidth, numRows }: Attention): void {
      const numHeads = D_MODEL / headWidth;
      const values = cache + keysBytes(CONTEXT, headWidth, numHeads);
      const [start, d] = [CONTEXT - numRows, D_MODEL];
      kernels.attend_f32(q, d, cache, values, CONTEXT, out, d, start, numRows, headWidth, 0, numHeads, scratch);
    },
    norm(numRows: number): void {
      kernels.add_norm_f32(q, D_MODEL, add, D_MODEL, norm, out, D_MODEL, numRows, D_MODEL);
    },
  };
}

const layers = targets.flatMap(target => {
  const of = layer(target);
  return of ? [{ target, ...of }] : [];
});

const rows: Row[] = [];
const work = new Map<string, number>();
for (const of of attentions) {
  const shape = `attention, ${D_MODEL / of.headWidth} heads of ${of.headWidth}, ${of.numRows} rows`;
  work.set(shape, flopsOf(of));
  const contenders = layers.flatMap(({ target, attend }) => {
    const registers = peak(target)!;
    const rounds = Math.round(flopsOf(of) / FLOPS);
    return [
      [`registers alone, ${target}`, () => registers(rounds)],
      [`kernels, ${target}`, () => attend(of)],
    ] as const;
  });
  rows.push(...(await compare(shape, new Map<string, () => unknown>(contenders), 'kernels, simd')));
}
for (const numRows of heights) {
  const shape = `norm, ${numRows} rows of ${D_MODEL}`;
  // x is read and written, what is added read, out written.
  work.set(shape, 4 * 4 * numRows * D_MODEL);
  const contenders = layers.map(({ target, norm }) => [`kernels, ${target}`, () => norm(numRows)] as const);
  rows.push(...(await compare(shape, new Map<string, () => unknown>(contenders), 'kernels, simd')));
}
emit(rows, () => tableOf(rows, { unit: 'GFLOP/s, GB/s', perCall: ({ shape }) => work.get(shape) }));
