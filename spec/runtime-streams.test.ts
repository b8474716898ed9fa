/** The runtime's texts: several at once, aborted, disposed of, full; and what is written on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { encode, evaluate, generate, loadModel } from 'xmoe/model';
import { openRuntime, type Runtime, type RuntimeOptions, type Token } from 'xmoe/runtime';
import { bits } from './bits.js';
import { slowModelFile } from './slow-model.js';
import { tinyModelFile } from './tiny-model.js';

const file = tinyModelFile({ max_position_embeddings: 40 });
const model = loadModel(file);

async function opened(options: RuntimeOptions = {}, bytes = file): Promise<Runtime> {
  return openRuntime(new Blob([bytes]), { deterministic: true, ...options });
}

async function written(tokens: AsyncIterable<Token>): Promise<number[]> {
  const bytes: number[] = [];
  for await (const { byte } of tokens) bytes.push(byte);
  return bytes;
}

const slowFile = slowModelFile(1500);
const long = encode('a long text '.repeat(125));

for (const threads of [1, 2]) {
  test(`streams know nothing of each other, whatever the order of their reads: ${threads} threads`, async () => {
    const runtime = await opened({ threads });
    const texts = ['the first text', 'another', 'and a third one', 'fourth'].map(encode);
    const alone: string[][] = [];
    for (const ids of texts) {
      const stream = runtime.stream();
      const whole = await stream.read(ids);
      alone.push(
        Array.from(ids, (_, i) => bits({ ...whole.logits, data: whole.logits.data.slice(256 * i, 256 * (i + 1)) })),
      );
      stream.dispose(); // the next one uses its memory
    }
    const streams = texts.map(() => runtime.stream());
    const { memoryBytes } = runtime.usage;
    // All at once, byte by byte, not awaiting: they take turns.
    const reads = texts.flatMap((ids, s) => Array.from(ids, (_, i) => [s, i] as const)).sort((a, b) => a[1] - b[1]);
    await Promise.all(
      reads.map(async ([s, i]) => {
        const { logits } = await streams[s].read(texts[s].subarray(i, i + 1));
        assert.equal(bits(logits), alone[s][i], `text ${s}, byte ${i}`);
      }),
    );
    assert.deepEqual(
      streams.map(({ numTokens }) => numTokens),
      texts.map(({ length }) => length),
    );
    assert.ok(runtime.usage.memoryBytes >= memoryBytes);
    streams[1].clear();
    assert.equal(streams[1].numTokens, 0);
    assert.equal(bits((await streams[1].read(texts[1].subarray(0, 1))).logits), alone[1][0]);
    runtime.dispose();
  });

  test(`the event loop turns while a long text is read: ${threads} threads`, async () => {
    const runtime = await opened({ threads }, slowFile);
    let numTurns = 0;
    let isDone = false;
    const reading = runtime.stream().read(long);
    const done = reading.then(() => {
      isDone = true;
    });
    while (!isDone) {
      await setImmediate();
      numTurns++;
    }
    await done;
    assert.ok(numTurns > 2, `${numTurns} turns`);
    runtime.dispose();
  });

  test(`an abort ends a read where it is, and the stream is as before it: ${threads} threads`, async () => {
    const runtime = await opened({ threads }, slowFile);
    const stream = runtime.stream();
    const before = encode('before');
    await stream.read(before);
    const abort = new AbortController();
    const reading = stream.read(long.subarray(0, 1400), { signal: abort.signal });
    const waiting = stream.read(encode('next'));
    await setImmediate();
    const reason = new Error('enough');
    abort.abort(reason);
    await assert.rejects(reading, (error: unknown) => error === reason);
    const afterAbort = await waiting;
    const undisturbed = runtime.stream();
    await undisturbed.read(before);
    assert.equal(bits(afterAbort.logits), bits((await undisturbed.read(encode('next'))).logits));
    assert.equal(stream.numTokens, 10);
    await assert.rejects(stream.read(encode('a'), { signal: AbortSignal.abort(reason) }), (e: unknown) => e === reason);
    assert.equal(stream.numTokens, 10);
    runtime.dispose();
  });

  test(`what is under way when it is disposed of is rejected: ${threads} threads`, async () => {
    const disposed = /^Error: "(model|stream)" expected one in use, got one that was disposed of$/;
    const runtime = await opened({ threads }, slowFile);
    const [stream, other] = [runtime.stream(), runtime.stream()];
    const reading = stream.read(long);
    const next = other.read(encode('a'));
    await setImmediate();
    stream.dispose();
    stream.dispose();
    await assert.rejects(reading, disposed);
    assert.equal((await next).logits.rows, 1);
    await assert.rejects(stream.read(encode('a')), disposed);

    const last = other.read(long.subarray(1));
    const waiting = runtime.evaluate(long);
    await setImmediate();
    runtime.dispose();
    runtime.dispose();
    await assert.rejects(last, disposed);
    await assert.rejects(waiting, disposed);
    await assert.rejects(other.read(encode('a')), disposed);
    assert.throws(() => runtime.stream(), disposed);
    assert.throws(() => runtime.generate('a', { maxTokens: 1 }), disposed);
    await assert.rejects(runtime.evaluate(encode('abc')), disposed);
    assert.throws(() => runtime.usage, disposed);
  });
}

test('a context has room for so many bytes and no more', async () => {
  const runtime = await opened();
  const stream = runtime.stream();
  const full = { name: 'RangeError', message: '"ids" expected at most 40 bytes (left of the context), got 41' };
  await assert.rejects(stream.read(new Uint8Array(41)), full);
  assert.equal(stream.numTokens, 0);
  assert.equal((await stream.read(new Uint8Array(0))).logits.rows, 0);
  await stream.read(new Uint8Array(38));
  const [fits, doesNot] = [stream.read(new Uint8Array(2)), stream.read(new Uint8Array(1))];
  await fits;
  await assert.rejects(doesNot, { message: '"ids" expected at most 0 bytes (left of the context), got 1' });
  assert.equal(stream.numTokens, 40);
  runtime.dispose();
});

test('a stream is not cleared while it is read', async () => {
  const runtime = await opened();
  const stream = runtime.stream();
  const reading = stream.read(encode('a'));
  assert.throws(() => stream.clear(), /^Error: "stream" expected no read under way, got one: await it first$/);
  await reading;
  stream.clear();
  assert.equal(stream.numTokens, 0);
  runtime.dispose();
});

test('memory of texts that were disposed of is used again', async () => {
  const runtime = await opened();
  const read = async () => {
    const streams = [1, 2, 3].map(() => runtime.stream());
    for (const stream of streams) await stream.read(new Uint8Array(40));
    for (const stream of streams) stream.dispose();
  };
  await read();
  const { memoryBytes } = runtime.usage;
  for (let i = 0; i < 50; i++) await read();
  for await (const _ of runtime.generate('loop', { maxTokens: 50 })) break;
  await runtime.evaluate(new Uint8Array(100));
  assert.equal(runtime.usage.memoryBytes, memoryBytes);
  runtime.dispose();
});

test('a text is written as the reference writes it: prompts and contexts of any length, sampled or not', async () => {
  for (const [contextLength, seed] of [
    [1, 1],
    [2, 2],
    [3, 3],
    [8, 4],
    [40, 5],
  ]) {
    const bytes = tinyModelFile({ max_position_embeddings: contextLength }, { seed });
    const [reference, runtime] = [loadModel(bytes), await opened({}, bytes)];
    for (const prompt of ['p', 'a prompt', 'a prompt that is longer than any context of these models is']) {
      for (const options of [
        { maxTokens: 60, temperature: 0 },
        { maxTokens: 60, seed: 7 },
        { maxTokens: 60, seed: 8, temperature: 0.7, topK: 5, topP: 0.8, threshold: 0.3 },
      ]) {
        const expected = Array.from(generate(reference, encode(prompt), options), ({ byte }) => byte);
        assert.deepEqual(await written(runtime.generate(prompt, options)), expected, `${contextLength} ${prompt}`);
      }
    }
    runtime.dispose();
  }
});

test('where the context is full a text ends, if it is to', async () => {
  const runtime = await opened();
  const options = { maxTokens: 1000, temperature: 0 };
  const ended = await written(runtime.generate('stop', { ...options, whenFull: 'stop' }));
  const shifted = await written(runtime.generate('stop', { ...options, whenFull: 'shift' }));
  assert.equal(ended.length, 40 - 4 + 1); // the last one is written when the context is full
  assert.deepEqual(shifted.slice(0, 37), ended);
  assert.equal(shifted.length, 1000);
  runtime.dispose();
});

test('of each byte that is written: its characters, its bits, its cost', async () => {
  const runtime = await opened();
  const prompt = encode('costs');
  const stream = runtime.stream();
  const text = new TextDecoder('utf-8', { ignoreBOM: true });
  let unread = prompt;
  for await (const token of runtime.generate(prompt, { maxTokens: 30, seed: 3, temperature: 1.5 })) {
    const reading = await stream.read(unread, { logits: 'last' });
    const z = Array.from(reading.logits.data);
    const surprise = Math.log2(z.reduce((sum, value) => sum + Math.exp(value - z[token.byte]), 0));
    assert.ok(Math.abs(token.bits - surprise) < 1e-9, `${token.bits} ${surprise}`);
    const total = (key: 'moeFlops' | 'flops') => reading.tokens.reduce((sum, cost) => sum + cost[key], 0);
    assert.deepEqual([token.moeFlops, token.flops], [total('moeFlops'), total('flops')]);
    assert.deepEqual(token.layers, reading.tokens.at(-1)!.layers);
    assert.equal(token.text, text.decode(Uint8Array.of(token.byte), { stream: true }));
    assert.ok(token.ms >= 0);
    unread = Uint8Array.of(token.byte);
  }
  runtime.dispose();
});
test('an abort ends a text, and so does its reader', async () => {
  const runtime = await opened();
  const abort = new AbortController();
  const reason = new Error('that will do');
  let numWritten = 0;
  const reading = (async () => {
    for await (const _ of runtime.generate('on and on', { maxTokens: 1e9, signal: abort.signal })) {
      if (++numWritten === 10) abort.abort(reason);
    }
  })();
  await assert.rejects(reading, (error: unknown) => error === reason);
  assert.equal(numWritten, 10);
  const endless = runtime.generate('and on', { maxTokens: 1e9 });
  await endless.next();
  await endless.return();
  assert.equal((await endless.next()).done, true);
  runtime.dispose();
});

test('options and arguments that are none are refused, at once where nothing is awaited', async () => {
  const runtime = await opened();
  const generates: [object, string, string][] = [
    [{ maxTokens: -1 }, 'RangeError', 'options.maxTokens'],
    [{ maxTokens: '1' }, 'TypeError', 'options.maxTokens'],
    [{ seed: 2 ** 32 }, 'RangeError', 'options.seed'],
    [{ temperature: -1 }, 'RangeError', 'options.temperature'],
    [{ topK: 0 }, 'RangeError', 'options.topK'],
    [{ topP: 0 }, 'RangeError', 'options.topP'],
    [{ threshold: 'none' }, 'TypeError', 'options.threshold'],
    [{ threshold: Number.NaN }, 'RangeError', 'options.threshold'],
    [{ whenFull: 'slide' }, 'RangeError', 'options.whenFull'],
    [{ signal: 1 }, 'TypeError', 'options.signal'],
    [{ topk: 5 }, 'TypeError', 'options'],
  ];
  for (const [option, name, argument] of generates) {
    const message = new RegExp(`^"${argument}" expected `);
    assert.throws(() => runtime.generate('a', { maxTokens: 1, ...option }), { name, message });
  }
  assert.throws(() => runtime.generate('', { maxTokens: 1 }), {
    name: 'RangeError',
    message: '"prompt" expected at least 1 byte, got none',
  });
  assert.throws(() => runtime.generate(5 as unknown as string, { maxTokens: 1 }), {
    message: '"prompt" expected a Uint8Array, got 5',
  });
  const reads: [object, string][] = [
    [{ logits: 'first' }, 'RangeError: "options.logits" expected all | last, got "first"'],
    [{ threshold: {} }, 'TypeError: "options.threshold" expected a finite number, got an object'],
    [{ tau: 1 }, 'TypeError: "options" expected none but logits, signal, threshold, got "tau"'],
  ];
  for (const [options, message] of reads) {
    await assert.rejects(runtime.stream().read(encode('a'), options), (error: unknown) => String(error) === message);
  }
  await assert.rejects(runtime.stream().read('a' as unknown as Uint8Array), {
    message: /^"ids" expected a Uint8Array/,
  });
  await assert.rejects(runtime.evaluate('a' as unknown as Uint8Array), { message: /^"text" expected a Uint8Array/ });
  await assert.rejects(runtime.evaluate(encode('a'), { maxTokens: 0.5 }), {
    message: /^"options.maxTokens" expected /,
  });
  await assert.rejects(runtime.evaluate(encode('a'), { onWindow: 1 as unknown as () => void }), {
    message: '"options.onWindow" expected a function, got 1',
  });
  runtime.dispose();
});

test('a text of no pair of bytes is evaluated as the reference does', async () => {
  const runtime = await opened();
  for (const text of ['', 'a']) {
    assert.deepEqual(await runtime.evaluate(encode(text)), evaluate(model, encode(text)));
  }
  const three = await runtime.evaluate(encode('three of these'), { maxTokens: 3 });
  assert.equal(three.numPredicted, 3);
  runtime.dispose();
});
