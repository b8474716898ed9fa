/** The language model on WebAssembly: what it computes. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { Config, Matrix } from 'xmoe';
import { emptyCache, encode, evaluate, generate, loadModel, type Model, run } from 'xmoe/model';
import { openRuntime, type Reading, type Runtime, type RuntimeOptions } from 'xmoe/runtime';
import { fromFloat64, readSafetensors, toFloat64, writeSafetensors } from 'xmoe/safetensors';
import { wasmBackend } from 'xmoe/wasm';
import { bits } from './bits.js';
import { assertSame, assertWithin } from './close.js';
import type { Approximate } from './internals.js';
import { models } from './model-fields.js';
import { asyncProperty } from './property.js';
import { watchResiduals } from './residuals.js';
import { afterAttention, afterFfn, type Kept, logitsApprox } from './runtime-bounds.js';
import { tinyModelFile } from './tiny-model.js';

const root = new URL('../../', import.meta.url);
const bytesOf = (path: string) => new Uint8Array(readFileSync(new URL(path, root)));
const shippedFile = bytesOf('models/xmoe-gpt.safetensors');
const shipped = loadModel(shippedFile);
const textOf = (name: string) => bytesOf(`models/text/${name}.txt`);

const hasRelaxed = await wasmBackend({ features: { relaxedSimd: 'enable' } }).then(
  backend => backend.dispose() === undefined,
  () => false,
);
const targets: readonly [string, RuntimeOptions][] = [
  ['simd', { deterministic: true }],
  ...(hasRelaxed ? [['relaxed', { features: { relaxedSimd: true } }] as [string, RuntimeOptions]] : []),
];

/** Lends a runtime over the bytes of a file. */
async function withRuntime<Result>(
  file: Uint8Array,
  options: RuntimeOptions,
  use: (runtime: Runtime) => Promise<Result>,
): Promise<Result> {
  const runtime = await openRuntime(new Blob([file]), options);
  try {
    return await use(runtime);
  } finally {
    runtime.dispose();
  }
}

const keptOf = ({ tokens }: Reading, numLayers: number): Kept[] =>
  Array.from({ length: numLayers }, (_, m) => tokens.map(({ layers }) => layers[m].experts));

/** Rows that came in several calls, as one matrix. */
function joined(parts: readonly Matrix[]): Matrix {
  const data = Float32Array.from(parts.flatMap(part => Array.from(part.data)));
  return { rows: parts.reduce((sum, { rows }) => sum + rows, 0), cols: parts[0].cols, data };
}

function assertApprox({ rows, cols, data }: Matrix, { value, error }: Approximate, what: string): number {
  assert.deepEqual([rows, cols], [value.rows, value.cols]);
  let largest = 0;
  for (let i = 0; i < data.length; i++) {
    const place = `${what} at [${Math.floor(i / cols)}, ${i % cols}]`;
    assert.ok(error[i] < Number.POSITIVE_INFINITY, `${place}: no bound`);
    assertWithin(data[i], value.data[i], error[i], place);
    largest = Math.max(largest, Math.abs(data[i] - value.data[i]) / error[i]);
  }
  return largest;
}

/** Reads bytes, and judges each half of each layer on its own input. @returns the largest share of a bound that was used */
async function judgeRead(file: Uint8Array, model: Model, ids: Uint8Array, options: RuntimeOptions, threshold?: number) {
  const { seen, end } = watchResiduals();
  const config: Config =
    threshold === undefined ? model.config.layer : { ...model.config.layer, router: 'threshold', threshold };
  try {
    return await withRuntime(file, options, async runtime => {
      const reading = await runtime.stream().read(ids, threshold === undefined ? {} : { threshold });
      const { numLayers, moeLayers, dModel } = model.config;
      const kept = keptOf(reading, moeLayers.length);
      // Calls of one norm after another, each of several rows.
      const xs: Matrix[] = [];
      for (let at = 0; at < seen.length; ) {
        const parts: Matrix[] = [];
        for (let rows = 0; rows < ids.length; rows += seen[at++].rows) parts.push(seen[at]);
        xs.push(joined(parts));
      }
      assert.equal(xs.length, 2 * numLayers + 1);
      const embedded = Float32Array.from(xs[0].data, (_, i) => {
        const token = ids[Math.floor(i / dModel)] * dModel + (i % dModel);
        return model.embedTokens.data[token] + model.embedPositions.data[i];
      });
      assertSame(xs[0].data, embedded, 'embedded');
      let [largest, m] = [0, 0];
      for (let l = 0; l < numLayers; l++) {
        const attended = afterAttention(model, l, xs[2 * l]);
        largest = Math.max(largest, assertApprox(xs[2 * l + 1], attended, `layer ${l}, after attention`));
        const isMoe = moeLayers.includes(l);
        const after = afterFfn(model, l, xs[2 * l + 1], config, isMoe ? kept[m++] : []);
        assert.equal(after.fault, undefined, `layer ${l}`);
        largest = Math.max(largest, assertApprox(xs[2 * l + 2], after, `layer ${l}, after the FFN`));
      }
      const logits = logitsApprox(model, xs[2 * numLayers]);
      return Math.max(largest, assertApprox(reading.logits, logits, 'logits'));
    });
  } finally {
    end();
  }
}

for (const [target, options] of targets) {
  test(`${target}: each half of each layer of the shipped model is within its bound of the reference`, async t => {
    for (const [name, threshold] of [
      ['sotu', undefined],
      ['kjv', 0.3],
    ] as const) {
      const largest = await judgeRead(shippedFile, shipped, textOf(name).subarray(0, 48), options, threshold);
      t.diagnostic(`${name}: at most ${largest.toFixed(3)} of a bound`);
    }
  });

  asyncProperty(
    `${target}: so is that of models of any sizes, with every router and activation`,
    models.filter(({ ids }) => ids.length > 0 && ids.length <= 48),
    async ({ fields, seed, ids }, reach) => {
      const file = tinyModelFile(fields, { seed });
      await judgeRead(file, loadModel(file), ids, options);
      reach(fields.hidden_act);
      if (fields.moe_layers.length > 0) reach(fields.router);
      else reach('no XMoE layer');
      if (fields.num_hidden_layers === 1) reach('one layer');
      if (fields.skip_expert && fields.moe_layers.length > 0) reach('skip expert');
      if (fields.capacity_factor !== null && fields.moe_layers.length > 0) reach('capacity');
      if ((fields.hidden_size / fields.num_attention_heads) % 4 !== 0) reach('odd head width');
    },
    [
      ...['relu', 'gelu', 'gelu_tanh', 'silu', 'swiglu', 'geglu', 'threshold', 'dense', 'topk', 'switch', 'base_eval'],
      ...['no XMoE layer', 'one layer', 'skip expert', 'capacity', 'odd head width'],
    ],
  );

  // Measured: 0.00003 on logits of 20. A float32 model of 4 layers has no useful bound from one end to the other.
  test(`${target}: logits are those that PyTorch computed in float64, to 0.0002`, async t => {
    const recorded = readSafetensors(bytesOf('spec/recordings/model/expected.safetensors')).tensors;
    await withRuntime(shippedFile, options, async runtime => {
      assert.equal(runtime.info.target, target);
      for (const name of [...recorded.keys()].filter(key => key.endsWith('.logits'))) {
        const [text, tau] = name.slice(0, -7).split('.tau');
        const threshold = tau === 'dense' ? tau : Number(tau);
        const stream = runtime.stream();
        const { logits } = await stream.read(textOf(text).subarray(0, 256), { threshold });
        stream.dispose();
        const expected = toFloat64(recorded.get(name)!, name);
        assert.equal(logits.data.length, expected.length);
        const largest = expected.reduce((most, z, i) => Math.max(most, Math.abs(z - logits.data[i])), 0);
        t.diagnostic(`${name}: ${largest}`);
        assert.ok(largest < 2e-4, `${name}: ${largest}`);
      }
    });
  });

  test(`${target}: at temperature 0 the shipped model writes what the reference writes`, async () => {
    await withRuntime(shippedFile, options, async runtime => {
      for (const [prompt, threshold] of [
        ['In the beginning', 0.9],
        ['The', 0.3],
        ['Fellow citizens', 'dense'],
      ] as const) {
        const options = { maxTokens: 20, temperature: 0, threshold };
        const expected = Array.from(generate(shipped, encode(prompt), options));
        let i = 0;
        for await (const { byte, layers } of runtime.generate(prompt, options)) {
          assert.equal(byte, expected[i].byte, `byte ${i} after ${prompt}`);
          assert.deepEqual(
            layers.map(({ experts }) => experts),
            expected[i++].experts,
          );
        }
        assert.equal(i, 20);
      }
    });
  });
}

asyncProperty(
  'bytes one after another, in any parts, on two threads or one, have the same bits',
  models.filter(({ fields, ids }) => ids.length > 0 && fields.capacity_factor === null),
  async ({ fields, seed, ids }, reach) => {
    const file = tinyModelFile(fields, { seed });
    const weights = (['f32', 'f16', 'bf16', 'int8'] as const)[seed % 4];
    const whole = await withRuntime(file, { weights, deterministic: true }, async runtime => {
      const { logits, tokens } = await runtime.stream().read(ids);
      const last = await runtime.stream().read(ids, { logits: 'last' });
      assert.equal(bits(last.logits), bits(rowOf(logits, ids.length - 1)));
      assert.deepEqual(last.tokens.at(-1), tokens.at(-1));
      const parts = runtime.stream();
      for (let first = 0, count = 1; first < ids.length; first += count, count = 1 + ((7 * count) % 40)) {
        const part = await parts.read(ids.subarray(first, first + count));
        for (let i = 0; i < part.logits.rows; i++) {
          assert.equal(bits(rowOf(part.logits, i)), bits(rowOf(logits, first + i)));
          assert.deepEqual(part.tokens[i], tokens[first + i]);
        }
      }
      assert.equal(parts.numTokens, ids.length);
      return { logits, tokens };
    });
    await withRuntime(file, { weights, deterministic: true, threads: 2 }, async runtime => {
      assert.equal(runtime.info.threads, 2);
      const { logits, tokens } = await runtime.stream().read(ids);
      assert.equal(bits(logits), bits(whole.logits));
      assert.deepEqual(tokens, whole.tokens);
    });
    reach(weights);
    if (ids.length > 264) reach('several batches');
    if (fields.moe_layers.length > 0) reach('XMoE');
  },
  ['f32', 'f16', 'bf16', 'int8', 'several batches', 'XMoE'],
  { share: 0.25 },
);

test('the shipped model has the same bits on 1, 2 and 3 threads, in every format', async () => {
  const ids = textOf('moby').subarray(0, 200);
  for (const weights of ['f32', 'f16', 'bf16', 'int8'] as const) {
    const [one, ...others] = await Promise.all(
      [1, 2, 3].map(threads =>
        withRuntime(shippedFile, { weights, deterministic: true, threads }, async runtime => {
          assert.equal(runtime.info.threads, threads);
          return bits((await runtime.stream().read(ids)).logits);
        }),
      ),
    );
    for (const other of others) assert.equal(other, one, weights);
  }
});

const rowOf = ({ cols, data }: Matrix, i: number): Matrix => ({
  rows: 1,
  cols,
  data: data.slice(i * cols, (i + 1) * cols),
});

/** A model file whose tensors were rounded, but for those that the runtime keeps in float32. */
function rounded(file: Uint8Array, dtype: 'F16' | 'BF16'): Uint8Array {
  const { tensors, metadata } = readSafetensors(file);
  const isProduct = (name: string, shape: readonly number[]) =>
    shape.length >= 2 && !/bias|router|embed/.test(name) && name.includes('layers');
  const all = Array.from(tensors, ([name, tensor]) => {
    if (!isProduct(name, tensor.shape)) return [name, tensor] as const;
    const once = fromFloat64(toFloat64(tensor, name), tensor.shape, dtype);
    return [name, fromFloat64(toFloat64(once, name), tensor.shape, 'F32')] as const;
  });
  return writeSafetensors({ tensors: new Map(all), metadata });
}

test('f16 and bf16 have the bits of f32 over rounded weights, but for the head', async () => {
  const ids = textOf('kjv').subarray(0, 100);
  for (const [weights, dtype] of [
    ['f16', 'F16'],
    ['bf16', 'BF16'],
  ] as const) {
    // The head is the embedding, which is not rounded where it is one. So what is compared is x before it.
    const residuals = async (file: Uint8Array, options: RuntimeOptions) => {
      const { seen, end } = watchResiduals();
      await withRuntime(file, options, async runtime => runtime.stream().read(ids));
      end();
      return seen.map(bits);
    };
    const expected = await residuals(rounded(shippedFile, dtype), { deterministic: true });
    assert.deepEqual(await residuals(shippedFile, { weights, deterministic: true }), expected);
    assert.notDeepEqual(await residuals(shippedFile, { deterministic: true }), expected);
  }
});

test('the model predicts a text as well as the reference does, and in int8 nearly so', async t => {
  const text = textOf('sotu').subarray(0, 600);
  const expected = evaluate(shipped, text, { threshold: 0.5 });
  for (const [weights, allowed] of [
    ['f32', 1e-5],
    ['f16', 2e-3],
    ['bf16', 1e-2],
    ['int8', 1e-2],
  ] as const) {
    await withRuntime(shippedFile, { weights, deterministic: true }, async runtime => {
      const starts: number[] = [];
      const options = { threshold: 0.5, onWindow: ({ start }: { start: number }) => void starts.push(start) };
      const actual = await runtime.evaluate(text, options);
      t.diagnostic(`${weights}: ${actual.bitsPerByte} bits per byte, ${expected.bitsPerByte}`);
      assertWithin(actual.bitsPerByte, expected.bitsPerByte, allowed, weights);
      assert.equal(actual.perplexity, 2 ** actual.bitsPerByte);
      assert.deepEqual([actual.numPredicted, actual.denseFlops], [599, expected.denseFlops]);
      assert.deepEqual(starts, [0, 256, 512]);
      if (weights === 'f32') {
        assert.deepEqual(actual.expertsPerToken, expected.expertsPerToken);
        assert.equal(actual.moeFlops, expected.moeFlops);
      }
    });
  }
});

test('a capacity factor is of each read, as in the reference', async () => {
  const file = tinyModelFile({ capacity_factor: 0.4, min_capacity: 1, max_position_embeddings: 200 });
  const model = loadModel(file);
  const ids = encode('capacity '.repeat(20));
  await withRuntime(file, { deterministic: true }, async runtime => {
    const stream = runtime.stream();
    const cache = emptyCache(model);
    for (const [first, end] of [
      [0, 150],
      [150, 180],
    ]) {
      const part = ids.subarray(first, end);
      const { tokens } = await stream.read(part);
      const { traces } = run(model, part, cache);
      traces.forEach(({ plan, cost }, m) => {
        const numKept = tokens.reduce((sum, { layers }) => sum + layers[m].experts.length, 0);
        assert.ok(numKept < plan.selection.expertIndex.length, 'nothing was dropped');
        assert.equal(numKept, plan.tokenIndex.length);
        assert.equal(numKept > 0 && cost.total > 0, true);
      });
      const moeFlops = tokens.reduce((sum, token) => sum + token.moeFlops, 0);
      assert.equal(
        moeFlops,
        traces.reduce((sum, { cost }) => sum + cost.total, 0),
      );
    }
  });
});

asyncProperty(
  'a capacity that suffices for everybody changes nothing: what is decided in a kernel is what is decided outside',
  models.filter(({ fields, ids }) => fields.router === 'threshold' && fields.moe_layers.length > 0 && ids.length > 0),
  async ({ fields, seed, ids }, reach) => {
    const options: RuntimeOptions = {
      weights: (['f32', 'int8'] as const)[seed % 2],
      deterministic: true,
      threads: 1 + (seed % 3 === 0 ? 1 : 0),
      ...(seed % 5 === 0 && { lazyExperts: {} }),
    };
    const [free, roomy] = await Promise.all(
      [null, fields.num_experts].map(capacity_factor =>
        withRuntime(tinyModelFile({ ...fields, capacity_factor }, { seed }), options, async runtime => {
          const { logits, tokens } = await runtime.stream().read(ids);
          return { logits: bits(logits), tokens };
        }),
      ),
    );
    assert.deepEqual(roomy, free);
    reach(options.weights!);
    reach(`${options.threads} threads`);
    if (fields.skip_expert) reach('skip expert');
    if (fields.num_experts === 1) reach('one expert');
    if (fields.threshold > 1) reach('every expert');
    if (ids.length === 1) reach('one byte');
  },
  ['f32', 'int8', '1 threads', '2 threads', 'skip expert', 'one expert', 'every expert', 'one byte'],
  { share: 0.25 },
);

/** The reads of these lengths need from nothing to a page more than the first: each step of a layer is one where memory grows. */
const growing = Array.from({ length: 22 }, (_, i) => 40 + 5 * i);

for (const [router, fields] of [
  ['threshold', {}],
  ['threshold with a capacity', { capacity_factor: 0.5, min_capacity: 1 }],
  ['BASE', { router: 'base_eval' }],
] as const) {
  test(`memory that grows in the middle of a layer moves nothing that is decided: ${router}`, async () => {
    for (const weights of ['f32', 'int8'] as const) {
      for (const length of growing) {
        const sizes = { hidden_size: 1, num_attention_heads: 1, num_experts: 15, moe_intermediate_size: 1 };
        const file = tinyModelFile({ ...sizes, max_position_embeddings: length, moe_layers: [2], ...fields });
        await withRuntime(file, { weights, deterministic: true }, async runtime => {
          const stream = runtime.stream();
          const grown = await stream.read(new Uint8Array(length));
          stream.clear();
          const { memoryBytes } = runtime.usage;
          const again = await stream.read(new Uint8Array(length));
          assert.equal(runtime.usage.memoryBytes, memoryBytes);
          assert.deepEqual(grown.tokens, again.tokens);
          assert.equal(bits(grown.logits), bits(again.logits));
        });
      }
    }
  });
}

test('of each byte it says how it was routed and what it cost', async () => {
  await withRuntime(shippedFile, { deterministic: true }, async runtime => {
    const ids = textOf('sotu').subarray(0, 20);
    const { tokens, logits, ms } = await runtime.stream().read(ids, { threshold: 0.7 });
    const { traces } = run(shipped, ids, emptyCache(shipped), { threshold: 0.7 });
    assert.equal(tokens.length, 20);
    assert.ok(ms > 0 && logits.rows === 20);
    tokens.forEach(({ layers, moeFlops, flops }, t) => {
      layers.forEach(({ experts, probs, margin }, m) => {
        const { selection } = traces[m].plan;
        const chosen = Array.from(
          selection.expertIndex.subarray(selection.tokenOffsets[t], selection.tokenOffsets[t + 1]),
        );
        assert.deepEqual(experts, chosen);
        // The mass before each rank but the first, up to the one that was not taken.
        let mass = 0;
        const masses = probs.map(p => {
          mass += p;
          return mass;
        });
        const gaps = masses.slice(0, 15).map(before => Math.abs(before - 0.7));
        assertWithin(margin, Math.min(...gaps), 1e-12, 'margin');
      });
      // d 192, E 16, m 96, D 768, 4 layers, 2 of them with XMoE.
      const numKept = layers.reduce((sum, { experts }) => sum + experts.length, 0);
      assert.equal(moeFlops, 2 * 2 * 192 * 16 + numKept * 4 * 192 * 96);
      const attention = 4 * (8 * 192 * 192 + 4 * 192 * (t + 1));
      assert.equal(flops, moeFlops + attention + 2 * 4 * 192 * 768 + 2 * 192 * 256);
    });
  });
});

test('margins are infinite where no threshold is compared', async () => {
  await withRuntime(tinyModelFile({ router: 'switch' }), {}, async runtime => {
    for (const { layers } of (await runtime.stream().read(encode('switch'))).tokens) {
      for (const { experts, margin } of layers)
        assert.deepEqual([experts.length, margin], [1, Number.POSITIVE_INFINITY]);
    }
  });
  await withRuntime(tinyModelFile({ num_experts: 1 }), {}, async runtime => {
    const [{ layers }] = (await runtime.stream().read(encode('a'))).tokens;
    assert.equal(layers[0].margin, Number.POSITIVE_INFINITY);
  });
});
