/** What share of the most that a core can do do the experts' products reach? S1's experts, relu, one thread. */
import { type Kernels, loadKernels, memoryOf, targets } from '../spec/kernels.js';
import { compare, type Row } from './measure.js';
import { FLOPS, peak } from './peak.js';
import { report } from './report.js';
import { shapes } from './shapes.js';

const { dModel, dFf, numExperts } = shapes.find(({ name }) => name === 'S1')!;
const MAX_ROWS = 33;

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
  // One memory each, one after the other: the arrays, all of float32 or addresses, follow each other.
  const width = 16;
  const filled = (n: number) => Math.ceil(n / width) * width;
  const ofExpert = 2 * filled(dModel) * filled(dFf) + dModel + dFf;
  const memory = memoryOf(4 * (numExperts * ofExpert + MAX_ROWS * (2 * dModel + dFf + 3) + 4 * width));
  const kernels = loadKernels(target, memory);
  if (kernels) experts.set(`experts, ${target}`, run(kernels, memory.buffer));
}

/** Lay out the experts and the rows; both products of so many experts over so many rows. */
function run({ up_f32, down_combine_f32, panelWidth, tileRows }: Kernels, memory: ArrayBuffer): (of: Case) => void {
  const width = panelWidth.value;
  const [upPanels, downPanels] = [Math.ceil(dFf / width), Math.ceil(dModel / width)];
  let end = 0;
  const place = (length: number) => {
    end += 4 * length;
    return end - 4 * length;
  };
  const xPtr = place(MAX_ROWS * dModel);
  const yPtr = place(MAX_ROWS * downPanels * width);
  const hiddenPtr = place(MAX_ROWS * upPanels * width);
  const [weightsPtr, biasPtr] = [place(MAX_ROWS), place(Math.max(upPanels, downPanels) * width)];
  const [rowsPtr, targetsPtr] = [place(MAX_ROWS), place(MAX_ROWS)];
  const upPtr = Array.from({ length: numExperts }, () => place(upPanels * width * dModel));
  const downPtr = Array.from({ length: numExperts }, () => place(downPanels * width * dFf));
  // Small whole numbers, so that no sum overflows or becomes denormal.
  const floats = new Float32Array(memory, 0, end / 4);
  for (let i = 0; i < floats.length; i++) floats[i] = ((i % 17) - 8) / 16;
  const addresses = new Uint32Array(memory);
  for (let i = 0; i < MAX_ROWS; i++) {
    addresses[rowsPtr / 4 + i] = xPtr + 4 * i * dModel;
    addresses[targetsPtr / 4 + i] = yPtr + 4 * i * downPanels * width;
  }
  // What the host may choose by the engine: see assembly/product.ts.
  if (Number(process.versions.node.split('.')[0]) >= 24) tileRows.value = 6;
  return of => {
    for (let e = 0; e < of.numExperts; e++) {
      up_f32(rowsPtr, of.numRows, upPtr[e], biasPtr, hiddenPtr, dModel, upPanels, 0);
      // biome-ignore format: the arguments in a row
      down_combine_f32(hiddenPtr, upPanels * width, of.numRows, downPtr[e], biasPtr, weightsPtr, targetsPtr, dFf, 0, downPanels);
    }
  };
}

function time(of: Case): Promise<Row[]> {
  const contenders = new Map<string, () => void>();
  for (const target of targets) {
    const registers = peak(target);
    if (registers) contenders.set(`registers alone, ${target}`, () => registers(Math.round(flopsOf(of) / FLOPS)));
    const kernels = experts.get(`experts, ${target}`);
    if (kernels) contenders.set(`experts, ${target}`, () => kernels(of));
  }
  return compare(label(of), contenders, 'experts, simd');
}

const rows: Row[] = [];
for (const of of cases) rows.push(...(await time(of)));
report(rows, new Map(cases.map(of => [label(of), flopsOf(of)])));
