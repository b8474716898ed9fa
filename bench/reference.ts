/** How far is the reference's matrix product, float64 and plain, from the kernel, float32 and SIMD? One thread. */
import { linear, type Matrix } from 'xmoe';
import { type Kernels, loadKernels, memoryOf, packed, targets } from '../spec/kernels.js';
import { compare, type Row } from './measure.js';
import { report } from './report.js';
import { type Product, products, shapes } from './shapes.js';

const cases = shapes.flatMap(products);
/** Outputs filled up to whole panels, of at most 16. */
const filled = (m: number) => Math.ceil(m / 16) * 16;
const memory = memoryOf(Math.max(...cases.map(({ n, m, k }) => 4 * (n * k + (k + 1 + n) * filled(m)))));
const kernels = new Map<string, Kernels>();
for (const target of targets) {
  const loaded = loadKernels(target, memory);
  if (loaded) kernels.set(`down_f32, ${target}`, loaded);
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
  const [xPtr, biasPtr] = [0, 4 * n * k];
  const [wPtr, yPtr] = [biasPtr + 4 * filled(m), biasPtr + 4 * (k + 1) * filled(m)];
  const x = sines(n, k, 0);
  const w = sines(m, k, 1);
  const expected = linear(x, w);
  const scale = linear(absolute(x), absolute(w));
  new Float32Array(memory.buffer, xPtr, n * k).set(x.data);
  new Float32Array(memory.buffer, biasPtr, filled(m)).fill(0);

  const contenders = new Map<string, () => void>([['reference, float64', () => linear(x, w)]]);
  for (const [name, { down_f32, panelWidth }] of kernels) {
    const panels = packed(w.data, m, k, panelWidth.value);
    const stride = panels.length / k;
    const run = () => down_f32(xPtr, k, n, wPtr, biasPtr, yPtr, stride, k, 0, stride / panelWidth.value);
    new Float32Array(memory.buffer, wPtr, panels.length).set(panels);
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
  return compare(label(product), contenders, 'down_f32, simd');
}

/** A matrix of sines of whole numbers, rounded to float32. */
function sines(rows: number, cols: number, from: number): Matrix {
  return { rows, cols, data: Float64Array.from({ length: rows * cols }, (_, i) => Math.fround(Math.sin(i + from))) };
}

function absolute({ rows, cols, data }: Matrix): Matrix {
  return { rows, cols, data: data.map(Math.abs) };
}
