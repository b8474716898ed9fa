/** What can go wrong with a model that is loaded or running, in Node and in a page: errors with names, and the next call works. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encode, generate, loadModel } from 'xmoe/model';
import { openRuntime, type Runtime, type RuntimeOptions } from 'xmoe/runtime';
import { fromFloat64, readSafetensors, writeSafetensors } from 'xmoe/safetensors';
import { startedWorkers } from './environment.js';
import { asyncProperty } from './property.js';
import { refusing } from './refused-memory.js';
import { slowModelFile } from './slow-model.js';
import { piecesOf, streamOf } from './streams.js';
import { type Fields, shapesOf, TINY, tinyModelFile } from './tiny-model.js';

const file = tinyModelFile({ max_position_embeddings: 32 });
const PROMPT = 'In the';
const OPTIONS = { maxTokens: 20, temperature: 0 };
const expected = [...generate(loadModel(file), encode(PROMPT), OPTIONS)].map(({ byte }) => byte);

const asked = await open(file, { threads: 2 });
const { info } = asked;
asked.dispose();
/** A page that is not cross-origin isolated has one thread. */
const numsOfThreads = info.threads === 1 ? [1] : [1, 2];
const onThreads = { skip: info.notUsed.threads };

function open(bytes: Uint8Array = file, options: RuntimeOptions = {}): Promise<Runtime> {
  return openRuntime(new Blob([bytes as Uint8Array<ArrayBuffer>]), options);
}

async function bytesOf(runtime: Runtime): Promise<number[]> {
  const bytes: number[] = [];
  for await (const { byte } of runtime.generate(PROMPT, OPTIONS)) bytes.push(byte);
  return bytes;
}

/** It opens and writes as if nothing had happened. */
async function expectInOrder(options: RuntimeOptions = {}): Promise<void> {
  const runtime = await open(file, options);
  assert.deepEqual(await bytesOf(runtime), expected);
  runtime.dispose();
}

/** In pieces, and without a length that would tell. */
const arriving = (bytes: Uint8Array) => streamOf(piecesOf(bytes, 500)).stream;

const joined = (...parts: readonly Uint8Array[]) => Uint8Array.from(parts.flatMap(part => [...part]));

// Files.

asyncProperty(
  'a file that is cut anywhere, or has bytes behind its end, is refused, whether or not its length is known',
  fc.oneof(
    fc.integer({ min: 0, max: file.length - 1 }).map(length => file.slice(0, length)),
    fc.uint8Array({ minLength: 1, maxLength: 3000 }).map(more => joined(file, more)),
  ),
  async (bytes, reach) => {
    for (const options of [{}, { lazyExperts: {} }]) {
      await assert.rejects(open(bytes, options), { name: 'SafetensorsError' });
    }
    await assert.rejects(openRuntime(arriving(bytes)), { name: 'SafetensorsError' });
    reach(bytes.length < file.length ? 'too short' : 'too long');
  },
  ['too short', 'too long'],
  { examples: [new Uint8Array(), file.slice(0, 8), file.slice(0, -1), joined(file, Uint8Array.of(0))] },
);

/** A file of this header, and what follows it. */
function fileOf(header: object, data: Uint8Array): Uint8Array {
  const text = encode(JSON.stringify(header));
  const size = new Uint8Array(8);
  new DataView(size.buffer).setBigUint64(0, BigInt(text.length), true);
  return joined(size, text, data);
}

/** The file with another header, of which its bytes know nothing. */
function withHeader(
  change: (header: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }>) => void,
) {
  const length = Number(new DataView(file.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  change(header);
  return fileOf(header, file.subarray(8 + length));
}

test('a header that lies is found out before a weight is packed', async () => {
  const name = 'model.layers.1.mlp.up_proj.weight';
  const lies: [Uint8Array, string, RegExp][] = [
    [withHeader(header => delete header[name]), 'SafetensorsError', /./],
    [
      withHeader(header => header[name].shape.reverse()),
      'RangeError',
      /^"model\.layers\.1\.mlp\.up_proj\.weight" expected/,
    ],
    [
      withHeader(header => header[name].shape.push(1)),
      'RangeError',
      /^"model\.layers\.1\.mlp\.up_proj\.weight" expected/,
    ],
    [withHeader(header => (header[name].shape[0] *= 2)), 'SafetensorsError', /up_proj/],
    [withHeader(header => (header[name].dtype = 'F16')), 'SafetensorsError', /up_proj/],
    [withHeader(header => (header[name].data_offsets[1] += 4)), 'SafetensorsError', /./],
    [withHeader(header => (header[name].data_offsets[0] = 0)), 'SafetensorsError', /./],
    [withHeader(header => (header[name].data_offsets[0] = -4)), 'SafetensorsError', /./],
    [withHeader(header => (header[name].data_offsets[1] = 2 ** 60)), 'SafetensorsError', /./],
  ];
  for (const [bytes, kind, message] of lies) {
    for (const source of [new Blob([bytes as Uint8Array<ArrayBuffer>]), arriving(bytes)]) {
      await assert.rejects(openRuntime(source), { name: kind, message });
    }
  }
});

test('a model of another architecture is refused by the field that says so, or by its tensors', async () => {
  const config = (fields: object) => tinyModelFile({}, { config: JSON.stringify({ ...TINY, ...fields }) });
  const renamed = readSafetensors(tinyModelFile());
  const gpt2 = new Map([...renamed.tensors].map(([name, tensor]) => [name.replace('model.', 'transformer.'), tensor]));
  const shapes = shapesOf(TINY);
  const { 'model.norm.bias': _, ...rest } = shapes;
  const others: [Uint8Array, RegExp][] = [
    [config({ model_type: 'llama' }), /"config\.model_type" expected xmoe-gpt, got "llama"/],
    [config({ tokenizer: 'bpe' }), /"config\.tokenizer" expected bytes, got "bpe"/],
    [config({ vocab_size: 50257 }), /"config\.vocab_size" expected an integer from 256 to 256, got 50257/],
    [config({ router: 'hash' }), /"config\.router" expected threshold \| .*, got "hash"/],
    [config({ num_attention_heads: 4 }), /"config\.num_attention_heads" expected a divisor of hidden_size 6, got 4/],
    [config({ num_hidden_layers: 4 }), /"model\.layers\.3\..*" expected/],
    [config({ num_experts: 6 }), /"model\.layers\.0\.mlp\..*" expected/],
    [tinyModelFile({}, { config: '[]' }), /"metadata\.config" expected a JSON object/],
    [
      writeSafetensors({ tensors: renamed.tensors, metadata: new Map() }),
      /"metadata\.config" expected a JSON object, got none/,
    ],
    [writeSafetensors({ tensors: gpt2, metadata: renamed.metadata }), /"model\..*" expected/],
    [tinyModelFile({}, { shapes: rest }), /"model\.norm\.bias" expected/],
    [tinyModelFile({}, { shapes: { ...shapes, 'lm_head.weight': [256, 6] } }), /lm_head\.weight/],
    [
      writeSafetensors({ tensors: new Map([['a', fromFloat64([1], [1], 'F32')]]), metadata: new Map() }),
      /"metadata\.config"/,
    ],
  ];
  for (const [bytes, message] of others) {
    for (const lazyExperts of [undefined, {}]) {
      await assert.rejects(open(bytes, lazyExperts && { lazyExperts }), { message });
    }
  }
});

asyncProperty(
  'a weight that is no number is refused by the name of its tensor, wherever it is',
  fc
    .record({
      name: fc.constantFrom(...Object.keys(shapesOf(TINY))),
      place: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      value: fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY),
    })
    .map(({ name, place, value }) => {
      const length = shapesOf(TINY)[name].reduce((a, b) => a * b, 1);
      const at = Math.floor(place * length);
      return { name, weights: { [name]: [...Array<number>(at).fill(0), value] } };
    }),
  async ({ name, weights }) => {
    for (const options of [{}, { weights: 'int8' } as const]) {
      await assert.rejects(open(tinyModelFile({}, { weights }), options), {
        name: 'RangeError',
        message: new RegExp(`^"${name.replaceAll('.', '\\.')}(?:\\[\\d+\\])?" expected finite`),
      });
    }
  },
);

// Memory.

const REFUSED = {
  name: 'RangeError',
  message: /^"(?:model|call)" expected \d+ bytes of WebAssembly memory, got none: the engine refused$/,
};

test('memory that is refused while a model loads is a named error, and the next one loads', async () => {
  for (const threads of numsOfThreads) {
    for (const lazyExperts of [undefined, {}]) {
      const options = { threads, ...(lazyExperts && { lazyExperts }) };
      await refusing(
        () => true,
        () => assert.rejects(open(file, options), REFUSED),
      );
      await expectInOrder(options);
    }
  }
});

test('memory that is refused while a text is read is a named error: the stream is as it was, and goes on', async () => {
  for (const threads of numsOfThreads) {
    const runtime = await open(tinyModelFile({ max_position_embeddings: 2000 }), { threads, deterministic: true });
    const [stream, whole] = [runtime.stream(), runtime.stream()];
    const text = encode('a text of some length '.repeat(60));
    await stream.read(text.subarray(0, 20));
    await refusing(
      what => what === 'grow',
      async () => {
        await assert.rejects(stream.read(text.subarray(20)), REFUSED);
        await assert.rejects(runtime.stream().read(text), REFUSED);
      },
    );
    assert.equal(stream.numTokens, 20);
    const [rest, all] = [await stream.read(text.subarray(20)), await whole.read(text)];
    assert.deepEqual(rest.logits.data, all.logits.data.slice(20 * 256));
    runtime.dispose();
  }
});

test('a model of more than 4 GiB is refused by its header: no memory is asked for, and no weight', async () => {
  const fields: Fields = { ...TINY, max_position_embeddings: 2 ** 24, hidden_size: 512 };
  let end = 0;
  const entries = Object.entries(shapesOf(fields)).map(([name, shape]) => {
    const begin = end;
    end += 4 * shape.reduce((a, b) => a * b, 1);
    return [name, { dtype: 'F32', shape, data_offsets: [begin, end] }];
  });
  const metadata = { config: JSON.stringify(fields) };
  const start = fileOf({ __metadata__: metadata, ...Object.fromEntries(entries) }, new Uint8Array());
  const largest = { pages: 0 };
  const watched = (_: string, pages: number) => {
    largest.pages = Math.max(largest.pages, pages);
    return false;
  };
  await refusing(watched, async () => {
    for (const threads of numsOfThreads) {
      await assert.rejects(openRuntime(streamOf([start], true).stream, { threads }), {
        name: 'RangeError',
        message: /^"model" expected to need at most 4 GiB of WebAssembly memory, got 34\d{9} bytes$/,
      });
    }
  });
  assert.ok(largest.pages <= 1, `${largest.pages} pages`);
});

// Several at once, and ends in the middle.

test('two loads of one source at once, and two texts at once, know nothing of each other', async () => {
  const blob = new Blob([file as Uint8Array<ArrayBuffer>]);
  for (const threads of numsOfThreads) {
    for (const lazyExperts of [undefined, {}]) {
      const options = { threads, ...(lazyExperts && { lazyExperts }) };
      const [a, b] = await Promise.all([openRuntime(blob, options), openRuntime(blob, options)]);
      const texts = await Promise.all([bytesOf(a), bytesOf(a), bytesOf(b)]);
      a.dispose();
      assert.deepEqual([...texts, await bytesOf(b)], [expected, expected, expected, expected]);
      b.dispose();
    }
  }
});

test('one stream is loaded once: another load of it is refused, and the first goes on', async () => {
  const stream = arriving(file);
  const [first, second] = await Promise.all([
    openRuntime(stream),
    openRuntime(stream).then(
      () => 'a runtime',
      error => error.name,
    ),
  ]);
  assert.equal(second, 'TypeError');
  assert.deepEqual(await bytesOf(first), expected);
  first.dispose();
});

const slowFile = slowModelFile(600);
const longText = encode('a long text '.repeat(50));

test('a disposal in the middle of reads rejects them all, and the next model works', async () => {
  for (const threads of numsOfThreads) {
    const runtime = await open(slowFile, { threads });
    const streams = [runtime.stream(), runtime.stream()];
    const written = runtime.generate(longText.subarray(0, 500), { maxTokens: 90, temperature: 0 });
    const [first] = [await written.next()];
    assert.equal(first.done, false);
    const reads = [...streams.map(stream => stream.read(longText)), written.next()];
    const rejected = Promise.all(
      reads.map(read => assert.rejects(read, /expected one in use, got one that was disposed of$/)),
    );
    await new Promise(resolve => setTimeout(resolve, 0));
    runtime.dispose();
    runtime.dispose();
    await rejected;
    for (const stream of streams) stream.dispose();
    await assert.rejects(runtime.evaluate(longText), /disposed of/);
    await expectInOrder({ threads });
  }
});

test(
  'a worker that is ended in the middle of a text is a WorkerError or not missed, and the next text is right',
  onThreads,
  async () => {
    const one = await open(slowFile, { deterministic: true });
    const options = { maxTokens: 40, temperature: 0 };
    const write = async (runtime: Runtime, onByte = (_: number) => {}) => {
      const bytes: number[] = [];
      for await (const { byte } of runtime.generate(longText.subarray(0, 300), options)) onByte(bytes.push(byte));
      return bytes;
    };
    const right = await write(one);
    one.dispose();
    const before = startedWorkers.length;
    const runtime = await open(slowFile, { deterministic: true, threads: 3 });
    const workers = startedWorkers.slice(before);
    assert.equal(workers.length, 2);
    const endOne = (numBytes: number) => {
      if (numBytes === 5) workers[0].terminate();
    };
    // Node tells of it; a browser does not: there the others do its work, unless it had some in hand.
    const outcome = await write(runtime, endOne).catch(error => error.name);
    if (outcome !== 'WorkerError') assert.deepEqual(outcome, right);
    assert.deepEqual(await write(runtime), right);
    runtime.dispose();
  },
);
