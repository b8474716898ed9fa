/** Model files that nobody should trust: each is a model or an error that names what is wrong. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encode, loadModel, run } from 'xmoe/model';
import { SafetensorsError } from 'xmoe/safetensors';
import { property } from './property.js';
import { type Fields, shapesOf, TINY, tinyModelFile } from './tiny-model.js';

const named = (name: string) => (error: unknown) =>
  (error instanceof TypeError || error instanceof RangeError) && error.message.startsWith(`"${name}" expected `);

test('a field out of range is refused by name', () => {
  const hostile: [keyof Fields, unknown, string?][] = [
    ['model_type', 'gpt2'],
    ['model_type', undefined],
    ['tokenizer', 'bpe'],
    ['tie_word_embeddings', false],
    ['vocab_size', 50257],
    ['num_hidden_layers', 1e9],
    ['num_hidden_layers', 0],
    ['num_hidden_layers', '3'],
    ['num_hidden_layers', 2.5],
    ['hidden_size', -6],
    ['hidden_size', 2 ** 53],
    ['hidden_size', null],
    ['num_attention_heads', 4],
    ['num_attention_heads', 0],
    ['max_position_embeddings', 1e12],
    ['intermediate_size', {}],
    ['moe_layers', 2],
    ['moe_layers', [3], 'moe_layers[0]'],
    ['moe_layers', [0, '1'], 'moe_layers[1]'],
    ['moe_layers', [1, 1]],
    ['num_experts', 0],
    ['moe_intermediate_size', 1e300],
    ['hidden_act', 'tanh'],
    ['hidden_act', 'constructor'],
    ['router', 'hash'],
    ['router', 'base_train'],
    ['threshold', undefined],
    ['threshold', 'dense'],
    ['capacity_factor', undefined],
    ['capacity_factor', -1],
    ['min_capacity', -1],
    ['skip_expert', 1],
    ['aux_loss_coef', 'a'],
    ['layer_norm_eps', 0],
    ['layer_norm_eps', undefined],
  ];
  for (const [field, value, name = field] of hostile) {
    const config = JSON.stringify({ ...TINY, [field]: value });
    assert.throws(() => loadModel(tinyModelFile({}, { config })), named(`config.${name}`), `${field}: ${value}`);
  }
  const topK = JSON.stringify({ ...TINY, router: 'topk', top_k: 6 });
  assert.throws(() => loadModel(tinyModelFile({}, { config: topK })), named('config.top_k'));
  const infinite = JSON.stringify(TINY).replace('"threshold":0.6', '"threshold":1e999');
  assert.throws(() => loadModel(tinyModelFile({}, { config: infinite })), named('config.threshold'));
});

test('a configuration that is no JSON object is refused', () => {
  for (const config of ['', '{', 'null', '[]', '"a"', '7', '['.repeat(100_000)]) {
    assert.throws(() => loadModel(tinyModelFile({}, { config })), named('metadata.config'), config.slice(0, 9));
  }
});

test('a tensor that is missing, misshapen, not finite or too many is refused by name', () => {
  const shapes = shapesOf(TINY);
  for (const [name, shape] of Object.entries(shapes)) {
    const { [name]: _, ...without } = shapes;
    assert.throws(() => loadModel(tinyModelFile({}, { shapes: without })), named(name));
    for (const other of [[], [...shape, 1], shape.with(-1, shape.at(-1)! + 1), shape.with(0, 0)]) {
      assert.throws(() => loadModel(tinyModelFile({}, { shapes: { ...shapes, [name]: other } })), named(name));
    }
  }
  const extra = tinyModelFile({}, { shapes: { ...shapes, 'lm_head.weight': [256, 6] } });
  assert.throws(() => loadModel(extra), {
    name: 'RangeError',
    message: '"lm_head.weight" expected no tensor of this name, got [256, 6]',
  });
  const up = 'model.layers.2.mlp.experts.up_proj';
  const infinite = tinyModelFile({}, { weights: { [up]: [...new Array(34).fill(1), Number.NEGATIVE_INFINITY] } });
  assert.throws(() => loadModel(infinite), {
    name: 'RangeError',
    message: `"${up}" expected finite numbers, got -Infinity at [1, 2, 4]`, // 34 = (1·3 + 2)·6 + 4
  });
});

test('more layers than the file holds: the first tensor that is missing is named', () => {
  const config = JSON.stringify({ ...TINY, num_hidden_layers: 10_000_000 });
  assert.throws(() => loadModel(tinyModelFile({}, { config })), named('model.layers.3.input_layernorm.weight'));
});

test('weights of every float dtype load; finite ones that overflow are refused when they run', () => {
  for (const dtype of ['F64', 'F32', 'BF16', 'F16'] as const)
    run(loadModel(tinyModelFile({}, { dtype })), encode('float'));
  const huge = (length: number) => new Array(length).fill(1.7e308);
  const weights = { 'model.embed_tokens.weight': huge(256 * 6), 'model.embed_positions.weight': huge(8 * 6) };
  for (const [moe_layers, name] of [
    [[0], 'x'],
    [[], 'model'],
  ] as const) {
    const model = loadModel(tinyModelFile({ moe_layers: [...moe_layers] }, { dtype: 'F64', weights }));
    assert.throws(() => run(model, encode('over')), named(name));
  }
});

test('a file cut anywhere is refused', () => {
  const bytes = tinyModelFile({ hidden_size: 1, num_attention_heads: 1 });
  for (let length = 0; length < bytes.length; length += 7) {
    assert.throws(() => loadModel(bytes.subarray(0, length)), SafetensorsError);
  }
});

property(
  'a file with bytes changed loads or is refused, and what loads runs or says that it overflows',
  fc.record({
    inHeader: fc.boolean(),
    changes: fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 4 }),
  }),
  ({ inHeader, changes }, reach) => {
    const bytes = tinyModelFile({ hidden_size: 2, num_attention_heads: 1 });
    const headerEnd = 8 + new DataView(bytes.buffer).getUint32(0, true);
    const part = inHeader ? bytes.subarray(0, headerEnd) : bytes.subarray(headerEnd);
    for (const [at, byte] of changes) part[at % part.length] = byte;
    try {
      const { logits } = run(loadModel(bytes), encode('hostile'));
      assert.ok(logits.data.every(Number.isFinite));
      reach('loaded');
    } catch (error) {
      assert.ok(
        [TypeError, RangeError, SafetensorsError].some(kind => error instanceof kind),
        `${error}`,
      );
      assert.doesNotMatch((error as Error).message, /undefined|not a function|call stack|allocation/);
      reach('refused');
    }
  },
  ['loaded', 'refused'],
);
