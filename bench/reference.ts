/** How far is the reference's matrix product, float64 and plain, from the kernel, float32 and SIMD? One thread. */
import { linear, type Matrix } from 'xmoe';
import { type Kernels, loadKernels, memoryOf, packed, targets } from '../spec/kernels.js';
import { compare, type Row } from './measure.js';
import { report } from './report.js';
import { type Product, products, shapes } from './shapes.js';

const cases = shapes.flatMap(products);
/** Outputs filled up to whole panels, of at most 16. */
const filled = (m: number) => Math.ceil(m / 16) * 16;
const memory = memoryOf(Math.max(...cases.map(({ n, m, k }) => 4 * (n * k + (k + 1 + n) * filled(m) + 2 * n))));
const kernels = new Map<string, Kernels>();
for (const target of targets) {
  const loaded = loadKernels(target, memory);
  if (loaded) kernels.set(`product_f32_8, ${target}`, loaded);
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
  const [xPtr, wPtr] = [0, 4 * n * k];
  const yPtr = wPtr + 4 * (k + 1) * filled(m);
  const rowsPtr = yPtr + 4 * n * filled(m);
  const stride = Math.ceil(m / 8) * 8;
  const x = sines(n, k, 0);
  const w = sines(m, k, 1);
  const expected = linear(x, w);
  const scale = linear(absolute(x), absolute(w));
  new Float32Array(memory.buffer, xPtr, n * k).set(x.data);
  const addresses = new Uint32Array(memory.buffer, rowsPtr, 2 * n);
  for (let i = 0; i < n; i++) {
    addresses[i] = xPtr + 4 * i * k;
    addresses[n + i] = yPtr + 4 * i * stride;
  }

  const contenders = new Map<string, () => void>([['reference, float64', () => linear(x, w)]]);
  for (const [name, { product_f32_8 }] of kernels) {
    const panels = packed({ n: m, k, weights: w.data, bias: new Float32Array(m) }, 'f32', 'simd', 8);
    const run = () => product_f32_8(wPtr, k, rowsPtr, n, rowsPtr + 4 * n, 0, stride / 8, 4, 0);
    new Uint8Array(memory.buffer).set(panels, wPtr);
    const y = new Float32Array(memory.buffer, yPtr, n * stride).fill(NaN);
    run();
    for (let i = 0; i < n * m; i++) {
      const actual = y[Math.floor(i / m) * stride + (i % m)];
      const bound = (k + 2) * 2 ** -24 * scale.data[i];
      if (!(Math.abs(actual - expected.data[i]) <= bound)) {
        throw new Error(`${name}, ${label(product)}: y[${i}] expected ${expected.data[i]} ± ${bound}, got ${actual}`);
      }
    }
    contenders.set(name, run);
  }
  return compare(label(product), contenders, 'product_f32_8, simd');
}

/** A matrix of sines of whole numbers, rounded to float32. */
function sines(rows: number, cols: number, from: number): Matrix {
  return { rows, cols, data: Float64Array.from({ length: rows * cols }, (_, i) => Math.fround(Math.sin(i + from))) };
}

function absolute({ rows, cols, data }: Matrix): Matrix {
  return { rows, cols, data: data.map(Math.abs) };
}
