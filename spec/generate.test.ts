/** Text from the language model: sampling, its random numbers, bytes and characters. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  decoder,
  encode,
  type GenerateOptions,
  generate,
  loadModel,
  type Model,
  nextUint32,
  nextUniform,
  randomState,
  run,
  type SampleOptions,
  sample,
} from 'xmoe/model';
import { readSafetensors, toFloat64 } from 'xmoe/safetensors';
import { property } from './property.js';
import { TINY, tinyModelFile } from './tiny-model.js';

const tiny = loadModel(tinyModelFile());

const written = (model: Model, prompt: string, options: GenerateOptions) =>
  Array.from(generate(model, encode(prompt), options), ({ byte }) => byte);

test('at temperature 0 the shipped model writes what PyTorch finds most probable', () => {
  const root = new URL('../../', import.meta.url);
  const model = loadModel(new Uint8Array(readFileSync(new URL('models/xmoe-gpt.safetensors', root))));
  const recording = new Uint8Array(readFileSync(new URL('spec/recordings/model/expected.safetensors', root)));
  const { tensors } = readSafetensors(recording);
  for (const [name, threshold] of [
    ['sotu.tau0.9', 0.9],
    ['sotu.taudense', 'dense'],
    ['moby.tau0.5', 0.5],
  ] as const) {
    const text = readFileSync(new URL(`models/text/${name.slice(0, 4)}.txt`, root));
    const logits = toFloat64(tensors.get(`${name}.logits`)!, 'logits');
    for (const length of [1, 50, 200]) {
      const ofLast = Array.from(logits.subarray(256 * (length - 1), 256 * length));
      const options = { maxTokens: 1, temperature: 0, threshold };
      const [{ byte, experts }] = generate(model, text.subarray(0, length), options);
      assert.equal(byte, ofLast.indexOf(Math.max(...ofLast)));
      assert.equal(experts.length, 2);
    }
  }
});

test('a cached step reads what a run from scratch would, and a full context keeps its newest half', () => {
  for (const contextLength of [1, 2, 3, 8]) {
    const model = loadModel(tinyModelFile({ max_position_embeddings: contextLength }));
    const tokens = [...generate(model, encode('full'), { maxTokens: 30, temperature: 0 })];
    let context = Array.from(encode('full')).slice(-contextLength);
    for (const { byte, experts } of tokens) {
      const { logits, traces } = run(model, Uint8Array.from(context));
      const ofLast = Array.from(logits.data.subarray(-256));
      assert.equal(byte, ofLast.indexOf(Math.max(...ofLast)));
      // All experts that keep the last token, in whatever order.
      const kept = traces.map(({ plan: { tokenIndex, expertOffsets } }) =>
        [...tokenIndex.keys()]
          .filter(i => tokenIndex[i] === context.length - 1)
          .map(i => expertOffsets.findLastIndex(offset => offset <= i)),
      );
      assert.deepEqual(
        experts.map(list => list.toSorted((a, b) => a - b)),
        kept,
      );
      const isFull = context.length === contextLength;
      context.push(byte);
      if (isFull) context = context.slice(-Math.ceil(contextLength / 2));
    }
  }
});

test('of a prompt longer than the context, the last bytes are read', () => {
  const options = { maxTokens: 20, seed: 3 };
  assert.deepEqual(written(tiny, 'a prompt of more than 8', options), written(tiny, 'e than 8', options));
});

test('the same seed writes the same text, another seed another', () => {
  const write = (seed?: number) =>
    written(tiny, 'seed', { maxTokens: 50, temperature: 2, ...(seed === undefined ? {} : { seed }) });
  assert.deepEqual(write(7), write(7));
  assert.notDeepEqual(write(7), write(8));
  assert.deepEqual(write(), write(0));
  assert.notDeepEqual(write(0), write(2 ** 32 - 1));
});

test('generation stops after maxTokens, or when its reader does', () => {
  assert.deepEqual(written(tiny, 'stop', { maxTokens: 0 }), []);
  const five = written(tiny, 'stop', { maxTokens: 5 });
  const endless = generate(tiny, encode('stop'), { maxTokens: Number.MAX_SAFE_INTEGER });
  assert.deepEqual(
    five.map(() => endless.next().value?.byte),
    five,
  );
});

test('threshold and backend reach the layers', () => {
  for (const { experts } of generate(tiny, encode('all'), { maxTokens: 12, threshold: 'dense' })) {
    assert.deepEqual(
      experts.map(list => list.length),
      [TINY.num_experts, TINY.num_experts],
    );
  }
  for (const { experts } of generate(tiny, encode('one'), { maxTokens: 12, threshold: 0 })) {
    assert.deepEqual(
      experts.map(list => list.length),
      [1, 1],
    );
  }
});

test('an empty prompt and options out of range are refused before anything is written', () => {
  const refused: [string, object, string][] = [
    ['RangeError', { temperature: -0.1 }, 'temperature'],
    ['RangeError', { temperature: Number.POSITIVE_INFINITY }, 'temperature'],
    ['TypeError', { temperature: '1' }, 'temperature'],
    ['RangeError', { topK: 0 }, 'topK'],
    ['RangeError', { topK: 1.5 }, 'topK'],
    ['TypeError', { topK: '5' }, 'topK'],
    ['RangeError', { topP: 0 }, 'topP'],
    ['RangeError', { topP: 1.01 }, 'topP'],
    ['RangeError', { topP: Number.NaN }, 'topP'],
    ['RangeError', { seed: -1 }, 'seed'],
    ['RangeError', { seed: 2 ** 32 }, 'seed'],
    ['RangeError', { seed: 0.5 }, 'seed'],
    ['RangeError', { maxTokens: -1 }, 'maxTokens'],
    ['TypeError', { maxTokens: undefined }, 'maxTokens'],
    ['RangeError', { threshold: Number.NaN }, 'threshold'],
    ['TypeError', { threshold: 'all' }, 'threshold'],
  ];
  for (const [name, option, argument] of refused) {
    const message = new RegExp(`^"options.${argument}" expected `);
    assert.throws(() => generate(tiny, encode('a'), { maxTokens: 1, ...option }), { name, message });
  }
  assert.throws(() => generate(tiny, 'a string' as unknown as Uint8Array, { maxTokens: 1 }), {
    name: 'TypeError',
    message: '"prompt" expected a Uint8Array, got "a string"',
  });
  assert.throws(() => generate(tiny, encode(''), { maxTokens: 1 }), {
    name: 'RangeError',
    message: '"prompt" expected at least 1 byte, got none',
  });
});

// Sampling.

/** How often each index is drawn. */
function draw(probs: number[], options: SampleOptions, times: number): number[] {
  const logits = Float64Array.from(probs, p => Math.log(p) + 100); // a constant added to logits changes nothing
  const random = randomState(11);
  const counts = probs.map(() => 0);
  for (let i = 0; i < times; i++) counts[sample(logits, options, random)]++;
  return counts;
}

/** Each count within five standard deviations of what p asks for. */
function follows(counts: number[], probs: number[]): void {
  const n = counts.reduce((a, b) => a + b);
  counts.forEach((count, i) => {
    const deviation = Math.sqrt(n * probs[i] * (1 - probs[i]));
    assert.ok(Math.abs(count - n * probs[i]) <= 5 * deviation, `${counts} for ${probs}`);
  });
}

test('bytes are drawn as often as they are probable', () => {
  follows(draw([0.1, 0.5, 0, 0.4], {}, 20_000), [0.1, 0.5, 0, 0.4]);
});

test('a temperature of 2 takes square roots, of ½ squares', () => {
  follows(
    draw([0.64, 0.04, 0.16, 0.16], { temperature: 2 }, 20_000),
    [0.8, 0.2, 0.4, 0.4].map(r => r / 1.8),
  );
  follows(draw([0.2, 0.4, 0.4, 0], { temperature: 0.5 }, 20_000), [0.04 / 0.36, 0.16 / 0.36, 0.16 / 0.36, 0]);
});

test('temperature 0 takes the largest logit, the lower byte among equals; so does one near 0', () => {
  const logits = Float64Array.of(-1, 3, 2, 3);
  assert.equal(sample(logits, { temperature: 0 }, randomState(0)), 1);
  assert.equal(sample(Float64Array.of(1, 3, 2), { temperature: Number.MIN_VALUE }, randomState(0)), 1);
});

test('top-p keeps the fewest bytes, most probable first, whose mass reaches it, and renormalises', () => {
  const probs = [0.125, 0.5, 0.125, 0.25];
  assert.deepEqual(draw(probs, { topP: 0.25 }, 100), [0, 100, 0, 0]);
  follows(draw(probs, { topP: 0.6 }, 20_000), [0, 2 / 3, 0, 1 / 3]);
  follows(draw(probs, { topP: 0.8 }, 20_000), [1 / 7, 4 / 7, 0, 2 / 7]); // of the equal two, the lower
  follows(draw(probs, { topP: 1 }, 20_000), probs);
});

test('top-k keeps the k most probable bytes, the lower ones among equals, and renormalises', () => {
  const probs = [0.125, 0.5, 0.125, 0.25];
  assert.deepEqual(draw(probs, { topK: 1 }, 100), [0, 100, 0, 0]);
  follows(draw(probs, { topK: 2 }, 20_000), [0, 2 / 3, 0, 1 / 3]);
  follows(draw(probs, { topK: 3 }, 20_000), [1 / 7, 4 / 7, 0, 2 / 7]);
  for (const topK of [4, 5, 1000]) assert.deepEqual(draw(probs, { topK }, 1000), draw(probs, {}, 1000));
});

test('temperature comes first, then top-k, and top-p is of what top-k has left', () => {
  const probs = [0.4, 0.3, 0.2, 0.1];
  // Of two, 4/7 and 3/7: the first alone reaches 0.57, which it would not of four.
  assert.deepEqual(draw(probs, { topK: 2, topP: 0.57 }, 100), [100, 0, 0, 0]);
  follows(draw(probs, { topK: 2, topP: 0.58 }, 20_000), [4 / 7, 3 / 7, 0, 0]);
  // At temperature ½ squares: 16/29, 9/29, 4/29 of three, and two of them reach 0.86.
  follows(draw(probs, { temperature: 0.5, topK: 3, topP: 0.86 }, 20_000), [16 / 25, 9 / 25, 0, 0]);
  follows(draw(probs, { temperature: 0.5, topK: 3, topP: 0.87 }, 20_000), [16 / 29, 9 / 29, 4 / 29, 0]);
});

property(
  'a byte that is drawn is in the smallest set',
  fc.record({
    logits: fc
      .array(fc.integer({ min: -5, max: 5 }), { minLength: 2, maxLength: 19 })
      .map(fifths => Float64Array.from(fifths, z => z / 5)),
    topP: fc.integer({ min: 1, max: 20 }).map(twentieths => twentieths / 20),
    seed: fc.nat(),
  }),
  ({ logits, topP, seed }, reach) => {
    const byte = sample(logits, { topP }, randomState(seed));
    const total = logits.reduce((sum, z) => sum + Math.exp(z), 0);
    const above = logits.reduce((sum, z) => sum + (z > logits[byte] + 1e-9 ? Math.exp(z) : 0), 0) / total;
    assert.ok(above < topP + 1e-12, `mass ${above} above byte ${byte}`);
    if (above > 0) reach('not the most probable');
  },
  ['not the most probable'],
);

// Random numbers.

test("the generator is xoshiro128**: Blackman and Vigna's C gives these from state 1, 2, 3, 4", () => {
  const state = Uint32Array.of(1, 2, 3, 4);
  const expected = [
    11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849, 3729100597, 4258142804,
  ];
  assert.deepEqual(
    expected.map(() => nextUint32(state)),
    expected,
  );
});

test('seeds give states that differ and are not zero, and uniform numbers from 0 up to 1', () => {
  const states = new Set<string>();
  for (let seed = 0; seed < 1000; seed++) {
    const state = randomState(seed);
    assert.ok(state.some(word => word !== 0));
    states.add(state.join());
    const u = nextUniform(state);
    assert.ok(u >= 0 && u < 1);
  }
  assert.equal(states.size, 1000);
});

// Bytes and characters.

const decoded = (bytes: Iterable<number>) => {
  const utf8 = decoder();
  const pieces = Array.from(bytes, byte => utf8.push(byte));
  return [...pieces, utf8.end()];
};

test('a character appears with its last byte', () => {
  assert.deepEqual(decoded([0x61, 0xc3, 0xa9, 0xe2, 0x82, 0xac]), ['a', '', 'é', '', '', '€', '']);
  assert.deepEqual(decoded(encode('😀')), ['', '', '', '😀', '']);
  assert.deepEqual(decoded(encode('\ufeffa')), ['', '', '\ufeff', 'a', '']);
});

test('bytes that are no UTF-8 become U+FFFD', () => {
  assert.deepEqual(decoded([0xff, 0x61]), ['\ufffd', 'a', '']);
  assert.deepEqual(decoded([0xc3, 0x61]), ['', '\ufffda', '']);
  assert.deepEqual(decoded([0xe2, 0x82]), ['', '', '\ufffd']);
});

property(
  'what is encoded decodes',
  fc.string({ unit: 'binary', maxLength: 30 }),
  (text, reach) => {
    assert.equal(decoded(encode(text)).join(''), text);
    if (encode(text).length > text.length) reach('several bytes');
  },
  ['several bytes'],
);
