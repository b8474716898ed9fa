/** The language model around the layer: loading, running, evaluating. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Matrix } from 'xmoe';
import { attend, denseFfn, emptyCache, encode, evaluate, layerNorm, loadModel, run } from 'xmoe/model';
import { readSafetensors, toFloat64 } from 'xmoe/safetensors';
import { RUNS } from './environment.js';
import { fieldsUpTo } from './model-fields.js';
import { property } from './property.js';
import { TINY, tinyModelFile } from './tiny-model.js';

const root = new URL('../../', import.meta.url);
const bytesOf = (path: string) => new Uint8Array(readFileSync(new URL(path, root)));
const shipped = loadModel(bytesOf('models/xmoe-gpt.safetensors'));
const textOf = (name: string) => bytesOf(`models/text/${name}.txt`);

// What PyTorch computed in float64: spec/recordings/model.

const recorded = readSafetensors(bytesOf('spec/recordings/model/expected.safetensors')).tensors;
const figures: Record<string, { bits_per_byte: number; experts_per_token: number[]; predicted: number }> = JSON.parse(
  readFileSync(new URL('spec/recordings/model/expected.json', root), 'utf8'),
);
const TOLERANCE = 1e-6;

/** 'sotu.tau0.9' -> the text and the threshold. */
function caseOf(name: string): { text: Uint8Array; threshold: number | 'dense' } {
  const [text, tau] = name.split('.tau');
  return { text: textOf(text), threshold: tau === 'dense' ? tau : Number(tau) };
}

for (const name of [...recorded.keys()].filter(key => key.endsWith('.logits')).map(key => key.slice(0, -7))) {
  test(`the logits of the first window are PyTorch's: ${name}`, t => {
    const { text, threshold } = caseOf(name);
    const { logits } = run(shipped, text.subarray(0, 256), emptyCache(shipped), { threshold });
    const expected = toFloat64(recorded.get(`${name}.logits`)!, 'logits');
    assert.deepEqual([logits.rows, logits.cols, expected.length], [256, 256, 256 * 256]);
    const largest = expected.reduce((max, z, i) => Math.max(max, Math.abs(z - logits.data[i])), 0);
    t.diagnostic(`largest difference ${largest}`);
    assert.ok(largest <= TOLERANCE, `largest difference ${largest}`);
  });
}

/** All fifteen take minutes, the cheapest ten seconds: with RUNS of 2000 or more all of them, under CI that one. */
const isLong = RUNS >= 2000;
const evaluated = isLong ? Object.keys(figures) : process.env.CI ? ['kjv.tau0.3'] : [];
for (const name of evaluated) {
  test(`bits per byte and experts per token are PyTorch's: ${name}`, t => {
    const { text, threshold } = caseOf(name);
    const { numPredicted, bitsPerByte, perplexity, expertsPerToken } = evaluate(shipped, text, { threshold });
    const expected = figures[name];
    t.diagnostic(`${bitsPerByte} bits per byte, ${expertsPerToken} experts per token`);
    assert.equal(numPredicted, expected.predicted);
    assert.ok(Math.abs(bitsPerByte - expected.bits_per_byte) <= TOLERANCE, `${bitsPerByte} bits per byte`);
    assert.ok(Math.abs(Math.log2(perplexity) - expected.bits_per_byte) <= TOLERANCE, `perplexity ${perplexity}`);
    assert.equal(expertsPerToken.length, 2);
    expected.experts_per_token.forEach((experts, i) => {
      assert.ok(Math.abs(expertsPerToken[i] - experts) <= TOLERANCE, `${expertsPerToken} experts per token`);
    });
  });
}

test('the figures of one window follow from its logits and traces', () => {
  const text = textOf('sotu').subarray(0, 101);
  const { logits, traces } = run(shipped, text.subarray(0, 100));
  let bits = 0;
  for (let i = 0; i < 100; i++) {
    const z = Array.from(logits.data.subarray(256 * i, 256 * (i + 1)));
    bits -= Math.log2(Math.exp(z[text[i + 1]]) / z.reduce((sum, value) => sum + Math.exp(value), 0));
  }
  const evaluation = evaluate(shipped, text);
  assert.ok(Math.abs(evaluation.bitsPerByte - bits / 100) < 1e-12);
  const pairs = traces.map(({ plan }) => plan.tokenIndex.length);
  assert.deepEqual(evaluation.expertsPerToken, [pairs[0] / 100, pairs[1] / 100]);
  // Router 2·d·E for each token, an expert 4·d·m for each pair; the dense FFN 4·d·D for each token: d 192, E 16, m 96, D 768.
  assert.equal(evaluation.moeFlops, 2 * 100 * 2 * 192 * 16 + (pairs[0] + pairs[1]) * 4 * 192 * 96);
  assert.equal(evaluation.denseFlops, 2 * 100 * 4 * 192 * 768);
  assert.equal(evaluation.flopsShare, evaluation.moeFlops / evaluation.denseFlops);
});

// Worked by hand.

const matrix = (...rows: number[][]): Matrix => ({
  rows: rows.length,
  cols: rows[0].length,
  data: Float64Array.from(rows.flat()),
});
const close = (actual: Matrix, expected: Matrix) => {
  assert.deepEqual([actual.rows, actual.cols], [expected.rows, expected.cols]);
  expected.data.forEach((value, i) => {
    assert.ok(
      Math.abs(actual.data[i] - value) < 1e-14,
      `[${Array.from(actual.data)}] for [${Array.from(expected.data)}]`,
    );
  });
};

test('layer norm takes the population variance, then eps, weight and bias', () => {
  // Row 0: mean 1, variance (1 + 1 + 1 + 9) / 4 = 3, √(3 + 1) = 2. Row 1: mean 5, variance 0, √1 = 1.
  const norm = { weight: Float64Array.of(1, 2, 1, 4), bias: Float64Array.of(0, 0, 10, 0.5) };
  const y = layerNorm(matrix([0, 0, 0, 4], [5, 5, 5, 5]), norm, 1);
  close(y, matrix([-0.5, -1, 9.5, 6.5], [0, 0, 10, 0.5]));
});

test('attention looks back only, and each head looks for itself', () => {
  // Width 1, scale 1. Token 1, head 0: scores 0 and ln 3, so p = ¼ and ¾; head 1: equal scores, so ½ and ½.
  const q = matrix([5, 7], [Math.log(3), 0]);
  const keys = matrix([0, -3], [1, 9]);
  const values = matrix([4, 10], [8, 20]);
  close(attend(q, keys, values, 2), matrix([4, 10], [7, 15]));
});

test('attention scales scores by the root of the head width', () => {
  // One head of width 4: ⟨q, k⟩ = 2 ln 3, over √4 is ln 3.
  const q = matrix([0, 0, 0, 0], [Math.log(3), Math.log(3), 0, 0]);
  const keys = matrix([0, 0, 5, 5], [1, 1, 6, 6]);
  const values = matrix([4, 0, 0, 1], [8, 0, 4, 1]);
  close(attend(q, keys, values, 1), matrix([4, 0, 0, 1], [7, 0, 3, 1]));
});

test('attention of the newest tokens sees the older ones in the cache', () => {
  const keys = matrix([0], [1]);
  const values = matrix([4], [8]);
  close(attend(matrix([Math.log(3)]), keys, values, 1), matrix([7]));
});

test('the dense FFN is down(σ(up)), and with a gate down(σ(gate) ⊙ up)', () => {
  const linear = (weight: Matrix, ...bias: number[]) => ({ weight, bias: Float64Array.from(bias) });
  const up = linear(matrix([1], [-1]), 1, 1); // x = 2: [3, −1]
  const down = linear(matrix([2, 5]), 1);
  close(denseFfn(matrix([2]), { up, down }, 'relu'), matrix([2 * 3 + 5 * 0 + 1]));
  // silu(ln 3) = ln 3 · 3/4, silu(0) = 0
  const gate = linear(matrix([Math.log(3) / 2], [0]), 0, 0);
  close(denseFfn(matrix([2]), { up, gate, down }, 'swiglu'), matrix([2 * 0.75 * Math.log(3) * 3 + 1]));
});

// Models of other sizes.

const fields = fieldsUpTo(
  { heads: 3, headWidth: 5, layers: 3, dFfDense: 7, experts: 7, dFf: 5 },
  fc.integer({ min: 1, max: 9 }),
);

const text = fc.oneof(
  { weight: 1, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 1 }) },
  { weight: 4, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 30 }) },
);

const modelAndText = fc
  .record({ fields, seed: fc.nat(), bytes: text })
  .map(({ fields, seed, bytes }) => ({ model: loadModel(tinyModelFile(fields, { seed })), fields, bytes }));

property(
  'bytes one after another, or in any two parts, give the bits that they give at once',
  fc.tuple(modelAndText, fc.nat()),
  ([{ model, bytes }, cut], reach) => {
    const ids = bytes.subarray(0, model.config.contextLength);
    const whole = run(model, ids);
    assert.ok(whole.logits.data.every(Number.isFinite));
    assert.equal(whole.traces.length, model.config.moeLayers.length);
    const parts = (...lengths: number[]) => {
      const cache = emptyCache(model);
      let first = 0;
      return lengths.flatMap(length => {
        const { logits } = run(model, ids.subarray(first, first + length), cache);
        first += length;
        return Array.from(logits.data);
      });
    };
    const expected = Array.from(whole.logits.data);
    const firstPart = cut % (ids.length + 1);
    assert.deepEqual(parts(firstPart, ids.length - firstPart), expected);
    assert.deepEqual(parts(...Array.from(ids, () => 1)), expected);
    if (firstPart > 0 && firstPart < ids.length) reach('two parts');
    if (model.config.moeLayers.length === 0) reach('no XMoE layer');
    if (model.config.moeLayers.length === model.config.numLayers) reach('XMoE layers only');
    if (model.config.numHeads === 1) reach('one head');
  },
  ['two parts', 'no XMoE layer', 'XMoE layers only', 'one head'],
);

property(
  'a later byte changes no earlier logit',
  fc.tuple(modelAndText, fc.nat(), fc.nat({ max: 255 })),
  ([{ model, bytes }, at, byte], reach) => {
    const ids = bytes.slice(0, model.config.contextLength);
    const before = run(model, ids).logits.data;
    const changed = at % ids.length;
    if (ids[changed] !== byte && changed > 0) reach('a change');
    ids[changed] = byte;
    const after = run(model, ids).logits.data;
    assert.deepEqual(after.subarray(0, 256 * changed), before.subarray(0, 256 * changed));
  },
  ['a change'],
);

property(
  'windows know nothing of each other, and their sum is the evaluation',
  modelAndText,
  ({ model, bytes }, reach) => {
    const { contextLength, moeLayers } = model.config;
    const windows: { start: number; bits: number[]; experts: unknown }[] = [];
    const whole = evaluate(model, bytes, {
      onWindow: ({ start, tokens }) =>
        windows.push({ start, bits: tokens.map(({ bits }) => bits), experts: tokens.map(({ experts }) => experts) }),
    });
    assert.equal(whole.numPredicted, bytes.length - 1);
    assert.equal(windows.length, Math.ceil((bytes.length - 1) / contextLength));
    let [bits, moeFlops] = [0, 0];
    windows.forEach((window, w) => {
      assert.equal(window.start, w * contextLength);
      const alone = bytes.subarray(window.start, window.start + contextLength + 1);
      const evaluation = evaluate(model, alone, {
        onWindow: ({ tokens }) => {
          assert.deepEqual(
            tokens.map(token => token.byte),
            Array.from(alone.subarray(0, -1)),
          );
          assert.deepEqual(
            tokens.map(token => token.bits),
            window.bits,
          );
          assert.deepEqual(
            tokens.map(token => token.experts),
            window.experts,
          );
        },
      });
      bits += evaluation.bitsPerByte * evaluation.numPredicted;
      moeFlops += evaluation.moeFlops;
    });
    assert.ok(Math.abs(whole.bitsPerByte * whole.numPredicted - bits) <= 1e-12 * bits);
    assert.equal(whole.moeFlops, moeFlops);
    assert.equal(whole.expertsPerToken.length, moeLayers.length);
    if (windows.length > 1) reach('two windows');
    if (windows.length === 0) reach('no window');
  },
  ['two windows', 'no window'],
);

test("threshold 'dense' is every expert, whatever the file's router: so is a threshold above 1", () => {
  for (const router of ['threshold', 'switch', 'base_eval']) {
    const model = loadModel(tinyModelFile({ router }));
    const dense = run(model, encode('every'), emptyCache(model), { threshold: 'dense' });
    const above = run(model, encode('every'), emptyCache(model), { threshold: 1.5 });
    const file = run(loadModel(tinyModelFile({ router: 'dense' })), encode('every'));
    assert.deepEqual(dense.logits, above.logits);
    assert.deepEqual(dense.logits, file.logits);
    for (const { plan } of dense.traces) assert.equal(plan.tokenIndex.length, 5 * TINY.num_experts);
    const { expertsPerToken } = evaluate(model, encode('every'), { threshold: 'dense' });
    assert.deepEqual(expertsPerToken, [TINY.num_experts, TINY.num_experts]);
  }
});

test('the model routes as its file says, and by a threshold when asked', () => {
  const text = encode('a threshold');
  const switched = loadModel(tinyModelFile({ router: 'switch' }));
  const routed = loadModel(tinyModelFile({ threshold: 0.6 }));
  assert.deepEqual(evaluate(switched, text).expertsPerToken, [1, 1]);
  assert.deepEqual(evaluate(switched, text, { threshold: 0.6 }), evaluate(routed, text));
  assert.notDeepEqual(evaluate(switched, text), evaluate(routed, text));
});

test('a backend that is given runs the XMoE layers', async () => {
  const { reference } = await import('xmoe');
  const model = loadModel(tinyModelFile());
  let calls = 0;
  const counting = {
    ...reference,
    name: 'counting',
    runExperts: (...args: Parameters<typeof reference.runExperts>) => {
      calls++;
      return reference.runExperts(...args);
    },
  };
  const { logits, traces } = run(model, encode('count'), emptyCache(model), { backend: counting });
  assert.deepEqual([calls, traces.map(({ backend }) => backend)], [2, ['counting', 'counting']]);
  assert.deepEqual(logits, run(model, encode('count')).logits);
});

test('a capacity factor drops tokens', () => {
  const text = encode('capacity');
  const { expertsPerToken } = evaluate(loadModel(tinyModelFile({ capacity_factor: 0.1, min_capacity: 1 })), text);
  // One row for each of five experts, seven tokens.
  for (const experts of expertsPerToken) assert.ok(experts > 0 && experts <= 5 / 7, `${experts}`);
});

test('no text, no pair of bytes and no tokens asked for: zeros, perplexity 1', () => {
  const none = {
    numPredicted: 0,
    bitsPerByte: 0,
    perplexity: 1,
    expertsPerToken: [0, 0],
    moeFlops: 0,
    denseFlops: 0,
    flopsShare: 0,
  };
  const model = loadModel(tinyModelFile());
  assert.deepEqual(evaluate(model, encode('')), none);
  assert.deepEqual(evaluate(model, encode('a')), none);
  assert.deepEqual(evaluate(model, encode('abc'), { maxTokens: 0 }), none);
  assert.equal(run(model, encode('')).logits.rows, 0);
  assert.equal(evaluate(loadModel(tinyModelFile({ moe_layers: [] })), encode('abc')).flopsShare, 0);
});

test('maxTokens predicts the first so many bytes', () => {
  const model = loadModel(tinyModelFile());
  const text = encode('the first so many bytes');
  assert.deepEqual(evaluate(model, text, { maxTokens: 10 }), evaluate(model, text.subarray(0, 11)));
  assert.equal(evaluate(model, text, { maxTokens: 1000 }).numPredicted, text.length - 1);
});

test('more bytes than the context holds are refused', () => {
  const model = loadModel(tinyModelFile());
  const cache = emptyCache(model);
  run(model, encode('12345'), cache);
  assert.throws(() => run(model, encode('6789'), cache), {
    name: 'RangeError',
    message: '"ids" expected at most 3 bytes (left of the context), got 4',
  });
  run(model, encode('678'), cache);
});

test('text that is no bytes is refused', () => {
  const model = loadModel(tinyModelFile());
  const text = 'a string' as unknown as Uint8Array;
  assert.throws(() => run(model, text), {
    name: 'TypeError',
    message: '"ids" expected a Uint8Array, got "a string"',
  });
  assert.throws(() => evaluate(model, text), { name: 'TypeError', message: /^"text" expected a Uint8Array/ });
});

test('options out of range are refused', () => {
  const model = loadModel(tinyModelFile());
  const options: [object, string][] = [
    [{ threshold: Number.NaN }, 'RangeError'],
    [{ threshold: 'all' }, 'TypeError'],
    [{ maxTokens: -1 }, 'RangeError'],
    [{ maxTokens: 1.5 }, 'RangeError'],
    [{ maxTokens: '9' }, 'TypeError'],
  ];
  for (const [option, name] of options) {
    const message = new RegExp(`^"options.${Object.keys(option)[0]}" expected `);
    assert.throws(() => evaluate(model, encode('abc'), option), { name, message });
  }
});
