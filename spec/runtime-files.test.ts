/** Models that the runtime opens, or refuses: files, formats, memory, options; and threads that die. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { encode, loadModel, type ModelSource, openModel } from 'xmoe/model';
import { openRuntime, type RuntimeOptions } from 'xmoe/runtime';
import { WorkerError } from 'xmoe/wasm';
import { bits } from './bits.js';
import { startedWorkers } from './environment.js';
import { asyncProperty } from './property.js';
import { piecesOf, streamOf } from './streams.js';
import { tinyModelFile } from './tiny-model.js';

const file = tinyModelFile();
const text = encode('the text');

/** The logits of a short text, by the model of a source. */
async function logitsOf(source: ModelSource, options: RuntimeOptions = {}): Promise<string> {
  const runtime = await openRuntime(source, { deterministic: true, ...options });
  try {
    return bits((await runtime.stream().read(text)).logits);
  } finally {
    runtime.dispose();
  }
}

const wholeLogits = await logitsOf(new Blob([file]));

asyncProperty(
  'pieces of any length give the same model, and progress ends at the whole',
  fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 9 }),
  async lengths => {
    const calls: [number, number][] = [];
    const onProgress = (numBytes: number, total: number) => void calls.push([numBytes, total]);
    assert.equal(await logitsOf(streamOf(piecesOf(file, ...lengths)).stream, { onProgress }), wholeLogits);
    assert.deepEqual(calls.at(-1), [file.length, file.length]);
    assert.ok(calls.every(([numBytes], i) => numBytes >= (calls[i - 1]?.[0] ?? 0)));
  },
);

test('weights of any float type are what they say', async () => {
  for (const dtype of ['F16', 'BF16'] as const) {
    const narrow = tinyModelFile({}, { dtype });
    const { embedTokens } = loadModel(narrow);
    assert.ok(embedTokens.data.every(value => Math.fround(value) === value));
    const runtime = await openRuntime(new Blob([narrow]), { deterministic: true });
    assert.equal(runtime.usage.bytesRead, narrow.length);
    runtime.dispose();
    // Rounded to their own format they stay as they are: all but the norms, biases and routers are stored in it.
    const weights = dtype === 'F16' ? 'f16' : 'bf16';
    assert.equal(await logitsOf(new Blob([narrow]), { weights }), await logitsOf(new Blob([narrow])));
  }
});

test('formats take less memory', async () => {
  const sizes = await Promise.all(
    (['f32', 'f16', 'bf16', 'int8'] as const).map(async weights => {
      const large = tinyModelFile({
        hidden_size: 64,
        intermediate_size: 256,
        moe_intermediate_size: 64,
        num_experts: 16,
      });
      const runtime = await openRuntime(new Blob([large]), { weights });
      const { weightBytes, memoryBytes, experts } = runtime.usage;
      assert.deepEqual([runtime.info.experts, experts], [weights, { resident: 32, reads: 32, evictions: 0 }]);
      assert.ok(memoryBytes >= weightBytes && memoryBytes < weightBytes + 2 ** 17);
      runtime.dispose();
      return weightBytes;
    }),
  );
  const [f32, f16, bf16, int8] = sizes;
  assert.ok(f16 === bf16 && f16 < 0.6 * f32 && int8 < 0.4 * f32, `${sizes}`);
});

const outcome = (load: Promise<unknown>) =>
  load.then(
    () => 'a model',
    error => `${error.name}: ${error.message}`,
  );

asyncProperty(
  'a damaged file gives the error of the reference, or its model',
  fc.record({ at: fc.integer({ min: 0, max: file.length - 1 }), bit: fc.integer({ min: 0, max: 7 }) }),
  async ({ at, bit }, reach) => {
    const damaged = file.slice();
    damaged[at] ^= 1 << bit;
    const expected = await outcome(openModel(new Blob([damaged])));
    if (expected !== 'a model') reach('refused');
    const opened = openRuntime(new Blob([damaged])).then(runtime => runtime.dispose());
    assert.equal(await outcome(opened), expected);
  },
  ['refused'],
  {
    share: 2,
    examples: [
      { at: 7, bit: 7 },
      { at: 9, bit: 0 },
      { at: file.length - 1, bit: 6 },
    ],
  },
);

test('a weight that the format cannot hold is refused, and its tensor named', async () => {
  const up = 'model.layers.0.mlp.experts.up_proj';
  const refused: [Record<string, number[]>, RuntimeOptions, 'F32' | 'F64', string][] = [
    [
      { 'model.norm.weight': [0, 1e300] },
      {},
      'F64',
      `"model.norm.weight" expected values within float32 (below 3.5e38), got 1e+300 at [0, 1]`,
    ],
    [
      { [up]: [...Array(19).fill(0), -7e4] },
      { weights: 'f16' },
      'F32',
      `"${up}[1]" expected magnitudes below 65520 for f16, got -70000 at [0, 1]`,
    ],
    [
      { 'model.embed_tokens.weight': [65520] },
      { weights: 'f16' },
      'F32',
      `"model.embed_tokens.weight" expected magnitudes below 65520 for f16, got 65520 at [0, 0]`,
    ],
    [
      { 'model.layers.1.self_attn.k_proj.weight': [3.4e38] },
      { weights: 'bf16' },
      'F32',
      `"model.layers.1.self_attn.k_proj.weight" expected magnitudes below ${2 ** 128 - 2 ** 119} for bf16, got ${Math.fround(3.4e38)} at [0, 0]`,
    ],
    [{ [up]: [...Array(21).fill(0), Number.NaN] }, {}, 'F32', `"${up}" expected finite numbers, got NaN at [1, 0, 3]`],
  ];
  for (const [weights, options, dtype, message] of refused) {
    const bytes = tinyModelFile({}, { weights, dtype });
    await assert.rejects(openRuntime(new Blob([bytes]), options), { name: 'RangeError', message });
  }
});

test('weights that overflow are told when they do', async () => {
  const bytes = tinyModelFile({}, { weights: { 'model.norm.weight': Array(6).fill(3e38) } });
  await assert.rejects(logitsOf(new Blob([bytes])), {
    name: 'RangeError',
    message: '"model" expected weights whose logits are finite, got weights that overflow float32',
  });
  const routers = tinyModelFile({}, { weights: { 'model.layers.0.mlp.router.weight': Array(30).fill(3e38) } });
  await assert.rejects(logitsOf(new Blob([routers])), {
    name: 'RangeError',
    message: /^"logits" expected finite values/,
  });
});

test('an abort ends the loading with its reason, and the threads', async () => {
  const reason = new Error('enough');
  for (const threads of [1, 2]) {
    const before = startedWorkers.length;
    const late = new AbortController();
    const options = { threads, signal: late.signal, onProgress: () => late.abort(reason) };
    await assert.rejects(openRuntime(streamOf([file.subarray(0, file.length - 1)], true).stream, options), reason);
    assert.equal(startedWorkers.length, before + threads - 1);
    for (const worker of startedWorkers.slice(before)) await ended(worker as Worker);
  }
});

const ended = (worker: Worker) =>
  new Promise<void>(resolve => {
    if (worker.threadId < 0) resolve();
    else worker.once('exit', () => resolve());
  });

test('a worker that dies is reported by the read, and the next works, with all that was read before', async () => {
  const large = tinyModelFile({
    max_position_embeddings: 200,
    hidden_size: 96,
    intermediate_size: 400,
    num_experts: 16,
    moe_intermediate_size: 64,
  });
  const ids = encode('a text of some length '.repeat(9));
  const expected = await openRuntime(new Blob([large]), { deterministic: true }).then(async runtime => {
    const { logits } = await runtime.stream().read(ids);
    runtime.dispose();
    return logits;
  });
  const before = startedWorkers.length;
  const runtime = await openRuntime(new Blob([large]), { deterministic: true, threads: 2 });
  const [stream, other] = [runtime.stream(), runtime.stream()];
  await stream.read(ids.subarray(0, 100));
  await other.read(ids.subarray(0, 50));
  await (startedWorkers.slice(before).at(-1) as Worker).terminate();
  await assert.rejects(stream.read(ids.subarray(100)), WorkerError);
  assert.deepEqual([stream.numTokens, other.numTokens], [100, 50]);
  const rest = await stream.read(ids.subarray(100));
  assert.equal(bits(rest.logits), bits({ ...rest.logits, data: expected.data.slice(256 * 100) }));
  const more = await other.read(ids.subarray(50, 60));
  assert.equal(bits(more.logits), bits({ ...more.logits, data: expected.data.slice(256 * 50, 256 * 60) }));
  runtime.dispose();
});

test('wrong options are refused by name', async () => {
  const wrong: [unknown, unknown, RegExp][] = [
    [7, {}, /^TypeError: "source" expected a path, URL, Blob or ReadableStream, got 7$/],
    [new Blob([file]), 7, /^TypeError: "options" expected an object, got 7$/],
    [new Blob([file]), { experts: 'f16' }, /^TypeError: "options" expected none but .*weights, got "experts"$/],
    [
      new Blob([file]),
      { weights: 'f8' },
      /^RangeError: "options.weights" expected f32 \| f16 \| bf16 \| int8, got "f8"$/,
    ],
    [new Blob([file]), { threads: 0 }, /^RangeError: "options.threads" expected an integer from 1 to 256, got 0$/],
    [new Blob([file]), { deterministic: 1 }, /^TypeError: "options.deterministic" expected true \| false, got 1$/],
    [new Blob([file]), { features: { simd: true } }, /^TypeError: "options.features" expected none but /],
    [new Blob([file]), { signal: 'stop' }, /^TypeError: "options.signal" expected an object, got "stop"$/],
    [new Blob([file]), { onProgress: 1 }, /^TypeError: "options.onProgress" expected a function, got 1$/],
  ];
  for (const [source, options, message] of wrong) {
    await assert.rejects(openRuntime(source as ModelSource, options as object), message);
  }
});
