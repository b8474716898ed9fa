/**
 * What share of the most that a core can do do the experts' products reach? S1's experts, relu, one thread. The most is what
 * the engine gets out of registers alone, and what a program in C does with vectors of 256 bits.
 */
import { type Kernels, loadKernels, memoryOf, targets, widths } from '../spec/kernels.js';
import { compare, type Entry, type Row } from './measure.js';
import { compileNative } from './native.js';
import { FLOPS, peak } from './peak.js';
import { note, report } from './report.js';
import { shapes } from './shapes.js';

const { dModel, dFf, numExperts } = shapes.find(({ name }) => name === 'S1')!;
const MAX_ROWS = 36;

/** `numExperts` experts get so many rows each: one alone finds its weights in the caches, all of them do not. */
const cases = [
  ...[1, 2, 3, 4, 32, MAX_ROWS].map(numRows => ({ numRows, numExperts: 1 })),
  ...[1, 4, 32].map(numRows => ({ numRows, numExperts })),
];
type Case = (typeof cases)[number];

const label = ({ numRows, numExperts }: Case) => `${numExperts} x ${numRows} rows`;
const flopsOf = ({ numRows, numExperts }: Case) => numExperts * numRows * 4 * dModel * dFf;
const experts = new Map<string, (of: Case) => void>();
for (const target of targets) {
  const ofExpert = dModel * (dFf + 1) + dFf * (dModel + 1);
  const memory = memoryOf(4 * (numExperts * ofExpert + MAX_ROWS * (3 * dModel + dFf + 5)));
  const kernels = loadKernels(target, memory);
  if (!kernels) continue;
  for (const width of widths) {
    for (const tileRows of target === 'relaxed' ? [4, 5, 6] : [4]) {
      const name = `experts, ${target} ${tileRows}x${width}`;
      experts.set(name, run(kernels, memory.buffer, width, tileRows));
    }
  }
}

/** Lay out the experts and the rows; both products of so many experts over so many rows. */
function run(kernels: Kernels, memory: ArrayBuffer, width: 8 | 16, tileRows: number): (of: Case) => void {
  const product = kernels[`product_f32_${width}`];
  let end = 0;
  const place = (length: number) => {
    end += 4 * length;
    return end - 4 * length;
  };
  const [x, y, out, hidden] = [dModel, dModel, dModel, dFf].map(length => place(MAX_ROWS * length));
  const [weights, xRows, hiddenRows, outRows, yRows] = [0, 1, 2, 3, 4].map(() => place(MAX_ROWS));
  const up = Array.from({ length: numExperts }, () => place(dFf * (dModel + 1)));
  const down = Array.from({ length: numExperts }, () => place(dModel * (dFf + 1)));
  // Small whole numbers, so that no sum overflows or becomes denormal.
  const floats = new Float32Array(memory, 0, end / 4);
  for (let i = 0; i < floats.length; i++) floats[i] = ((i % 17) - 8) / 16;
  const addresses = new Uint32Array(memory);
  for (let i = 0; i < MAX_ROWS; i++) {
    addresses[xRows / 4 + i] = x + 4 * i * dModel;
    addresses[hiddenRows / 4 + i] = hidden + 4 * i * dFf;
    addresses[outRows / 4 + i] = out + 4 * i * dModel;
    addresses[yRows / 4 + i] = y + 4 * i * dModel;
  }
  return ({ numRows, numExperts }) => {
    for (let e = 0; e < numExperts; e++) {
      product(up[e], dModel, xRows, numRows, hiddenRows, 0, dFf / width, tileRows, 0);
      kernels.activate_f32(hidden, hidden, numRows * dFf, 0);
      product(down[e], dFf, hiddenRows, numRows, outRows, 0, dModel / width, tileRows, 0);
      kernels.combine_f32(outRows, weights, yRows, numRows, 0, dModel);
    }
  };
}

const native = compileNative('native-peak');
if (typeof native === 'string') note(`registers alone, native left out: ${native}`);

function time(of: Case): Promise<Row[]> {
  const contenders = new Map<string, Entry['run']>();
  if (typeof native !== 'string') contenders.set('registers alone, native', native.sampler(flopsOf(of)));
  for (const target of targets) {
    const registers = peak(target);
    if (registers) contenders.set(`registers alone, ${target}`, () => registers(Math.round(flopsOf(of) / FLOPS)));
  }
  for (const [name, run] of experts) contenders.set(name, () => run(of));
  return compare(label(of), contenders, 'experts, simd 4x8');
}

const rows: Row[] = [];
for (const of of cases) rows.push(...(await time(of)));
report(rows, new Map(cases.map(of => [label(of), flopsOf(of)])));
