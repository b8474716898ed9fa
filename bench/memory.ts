/**
 * How much memory does it take to open a model and to write 64 bytes with it, beside what its weights take? One thread. Each
 * measurement has a process of its own, which has used a small model before: what is counted is what comes on top. Linux only.
 *
 * Options  --formats f32,f16,int8  --json  --rows FILE
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { tinyModelFile } from '../spec/tiny-model.js';
import type { Measured } from './memory-child.js';
import { emit, outputOptions, table } from './report.js';
import { shippedModel } from './texts.js';

/** Large beside all that V8 takes for itself: 33 million weights, of random values. */
const LARGE = {
  hidden_size: 512,
  num_hidden_layers: 8,
  num_attention_heads: 8,
  intermediate_size: 2048,
  moe_layers: [1, 3, 5, 7],
  num_experts: 16,
  moe_intermediate_size: 256,
  max_position_embeddings: 256,
};

const { values: options } = parseArgs({
  options: { ...outputOptions, formats: { type: 'string', default: 'f32,f16,int8' } },
});

const folder = mkdtempSync(join(tmpdir(), 'xmoe-bench-'));
const [small, large] = [{ max_position_embeddings: 128 }, LARGE].map((fields, i) => {
  const path = join(folder, `${i}.safetensors`);
  writeFileSync(path, tinyModelFile(fields));
  return path;
});
const files = [
  { name: 'the shipped model', path: shippedModel().path },
  { name: 'a larger one', path: large },
];
const rows = files.flatMap(({ name, path }) =>
  options.formats.split(',').map(format => {
    const [held, resident] = ['held', 'resident'].map(what => measure(path, format, what));
    const { weightBytes, wasmBytes } = held;
    const fileBytes = statSync(path).size;
    const peaks = { held: held.peak, resident: resident.peak };
    return { model: name, format, node: process.version, fileBytes, weightBytes, wasmBytes, ...peaks };
  }),
);
rmSync(folder, { recursive: true });

emit(rows, () => {
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
  const cells = rows.map(({ model, format, fileBytes, weightBytes, wasmBytes, held, resident }) => [
    model,
    format,
    ...[fileBytes, weightBytes, wasmBytes].map(megabytes),
    ...[held, resident].map(peak => `${megabytes(peak)}, ${(peak / weightBytes).toFixed(2)}x`),
  ]);
  const titles = ['model', 'weights', 'file MB', 'packed weights MB', 'WASM memory MB'];
  const peaks = ['peak held MB, over the weights', 'peak resident MB, over the weights'];
  return table([...titles, ...peaks], cells, 2);
});

function measure(path: string, format: string, what: string): Measured {
  const child = fileURLToPath(new URL('./memory-child.js', import.meta.url));
  const command = ['--expose-gc', ...process.execArgv, child, small, path, format, what];
  return JSON.parse(execFileSync(process.execPath, command, { encoding: 'utf8' }));
}
