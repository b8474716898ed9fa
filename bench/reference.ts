/** How far is the reference's matrix product, float64 and plain, from the kernel, float32 and SIMD? One thread. */
import { linear, type Matrix } from 'xmoe';
import { type Kernels, loadKernels, memoryOf, targets } from '../spec/kernels.js';
import { compare, type Row, report } from './measure.js';
import { type Product, products, shapes } from './shapes.js';

const cases = shapes.flatMap(products);
const memory = memoryOf(Math.max(...cases.map(({ n, m, k }) => 4 * (n * k + m * k + n * m))));
const kernels = new Map<string, Kernels>();
for (const target of targets) {
  const loaded = loadKernels(target, memory);
  if (loaded) kernels.set(`linear_f32, ${target}`, loaded);
}

const rows: Row[] = [];
for (const product of cases) rows.push(...(await time(product)));
const flops = new Map(cases.map(product => [label(product), 2 * product.n * product.m * product.k]));
report(rows, flops);

function label({ name, n, m, k }: Product): string {
  return `${name}, ${n} x ${m} x ${k}`;
}

/** Time one product with every contender, once all outputs are within the bound. */
function time(product: Product): Promise<Row[]> {
  const { n, m, k } = product;
  const xPtr = 0;
  const wPtr = xPtr + 4 * n * k;
  const yPtr = wPtr + 4 * m * k;
  const x = inputs(n, k, xPtr);
  const w = inputs(m, k, wPtr);
  const expected = linear(x, w);
  const scale = linear(absolute(x), absolute(w));

  const contenders = new Map<string, () => void>([['reference, float64', () => linear(x, w)]]);
  for (const [name, { linear_f32 }] of kernels) {
    const y = new Float32Array(memory.buffer, yPtr, n * m).fill(NaN);
    linear_f32(xPtr, wPtr, 0, yPtr, n, m, k);
    for (let i = 0; i < y.length; i++) {
      const bound = (k + 2) * 2 ** -24 * scale.data[i];
      if (!(Math.abs(y[i] - expected.data[i]) <= bound)) {
        throw new Error(`${name}, ${label(product)}: y[${i}] expected ${expected.data[i]} ± ${bound}, got ${y[i]}`);
      }
    }
    contenders.set(name, () => linear_f32(xPtr, wPtr, 0, yPtr, n, m, k));
  }
  return compare(label(product), contenders, 'linear_f32, simd');
}

/** Fill a matrix in the kernels' memory with sines of whole numbers, the same in each run; hand it over in float64. */
function inputs(rows: number, cols: number, ptr: number): Matrix {
  const data = new Float32Array(memory.buffer, ptr, rows * cols);
  for (let i = 0; i < data.length; i++) data[i] = Math.sin(i + ptr);
  return { rows, cols, data: new Float64Array(data) };
}

function absolute({ rows, cols, data }: Matrix): Matrix {
  return { rows, cols, data: data.map(Math.abs) };
}
