/** Experts that are read when they are needed: the bits of those that are all there, whatever the budget and the source. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import fc from 'fast-check';
import { type ModelSource, SourceError } from 'xmoe/model';
import { openRuntime, type Reading, type Runtime, type RuntimeOptions } from 'xmoe/runtime';
import { type Answering, answering, serving } from './broken-server.js';
import { startedWorkers } from './environment.js';
import { numOpen } from './open-files.js';
import { asyncProperty } from './property.js';
import { type Fields, TINY, tinyModelFile } from './tiny-model.js';

const file = tinyModelFile();
const ids = Uint8Array.of(7, 200, 31, 64, 5);
const NUM_LAYERS = TINY.moe_layers.length;
const NUM_EXPERTS = NUM_LAYERS * TINY.num_experts;
/** Of the file: up and down of an expert in float32. */
const EXPERT_BYTES = 4 * 2 * TINY.hidden_size * TINY.moe_intermediate_size;

const folder = mkdtempSync(join(tmpdir(), 'xmoe-lazy-'));
const path = join(folder, 'tiny.safetensors');
writeFileSync(path, file);
after(() => rmSync(folder, { recursive: true }));

/** Exactly what a read says, but for the time it took. */
function facts({ logits, tokens }: Reading) {
  return {
    logits: Buffer.from(logits.data.buffer, logits.data.byteOffset, logits.data.byteLength).toString('hex'),
    tokens,
  };
}

async function lazily<T>(
  source: ModelSource,
  use: (runtime: Runtime) => Promise<T>,
  options: RuntimeOptions = { lazyExperts: {} },
): Promise<T> {
  const runtime = await openRuntime(source, options);
  try {
    return await use(runtime);
  } finally {
    runtime.dispose();
  }
}

const residentFacts = await lazily(new Blob([file]), async runtime => facts(await runtime.stream().read(ids)), {});
/** Bytes of a packed expert, which the door tells. */
const packedBytes = await (async () => {
  const refused = openRuntime(new Blob([file]), { lazyExperts: { budget: 1 } });
  const message = await refused.then(String, error => error.message as string);
  return Number(/^"options.lazyExperts.budget" expected at least (\d+) bytes, one expert's, got 1$/.exec(message)![1]);
})();

/** Experts that are held, the least recently used first. */
class Held {
  keys: number[] = [];
  reads = 0;
  evictions = 0;
  readonly #numSlots: number;

  constructor(numSlots: number) {
    this.#numSlots = numSlots;
  }

  /** What one read needs, layer after layer, ascending; as many at once as there are slots. */
  read({ tokens }: Reading, numExperts: number, skips: boolean): void {
    for (let m = 0; m < tokens[0].layers.length; m++) {
      const chosen = new Set(tokens.flatMap(({ layers }) => layers[m].experts.map(e => (skips ? e - 1 : e))));
      const needed = [...chosen].filter(e => e >= 0).sort((a, b) => a - b);
      for (let i = 0; i < needed.length; i += this.#numSlots) {
        this.#need(needed.slice(i, i + this.#numSlots).map(e => m * numExperts + e));
      }
    }
  }

  #need(keys: readonly number[]): void {
    const missing = keys.filter(key => !this.keys.includes(key));
    const others = this.keys.filter(key => !keys.includes(key));
    const room = Math.min(others.length, this.#numSlots - keys.length);
    this.reads += missing.length;
    this.evictions += others.length - room;
    this.keys = [...others.slice(others.length - room), ...keys];
  }
}

const fields: fc.Arbitrary<Partial<Fields>> = fc.record({
  num_experts: fc.integer({ min: 1, max: 9 }),
  moe_intermediate_size: fc.integer({ min: 1, max: 9 }),
  moe_layers: fc.subarray([0, 1, 2], { minLength: 1 }),
  hidden_act: fc.constantFrom('relu', 'gelu', 'swiglu'),
  skip_expert: fc.boolean(),
  capacity_factor: fc.constantFrom(null, 1),
});
const calls = fc.array(
  fc.record({
    ids: fc.uint8Array({ minLength: 1, maxLength: 8 }),
    threshold: fc.constantFrom(0, 0.3, 0.6, 0.9, 'dense' as const),
    isNew: fc.boolean(),
  }),
  { minLength: 1, maxLength: 6 },
);

asyncProperty(
  'any budget gives the bits of all experts at once, and reads what the least recently used leave to be read',
  fc.record({
    fields,
    calls,
    numSlots: fc.integer({ min: 1, max: 30 }),
    weights: fc.constantFrom('f32' as const, 'f16' as const, 'int8' as const),
  }),
  async ({ fields, calls, numSlots, weights }, reach) => {
    const bytes = tinyModelFile(fields);
    const {
      num_experts: E,
      moe_layers,
      moe_intermediate_size: m,
      hidden_act,
      skip_expert,
    } = { ...TINY, ...fields } as Fields;
    const source = new Blob([bytes]);
    const options = { weights, deterministic: true };
    const one = await openRuntime(source, { ...options, lazyExperts: { budget: 1 } }).then(
      () => assert.fail('a budget of one byte'),
      error => Number(/at least (\d+) bytes/.exec(error.message)![1]),
    );
    const budget = numSlots * one + one - 1;
    await lazily(
      source,
      resident =>
        lazily(
          source,
          async lazy => {
            const held = new Held(Math.min(numSlots, E * moe_layers.length));
            const opened = lazy.usage;
            const ofExpert = (hidden_act === 'swiglu' ? 3 : 2) * 4 * TINY.hidden_size * m;
            assert.equal(opened.bytesRead, bytes.length - E * moe_layers.length * ofExpert);
            let [a, b] = [resident.stream(), lazy.stream()];
            for (const { ids, threshold, isNew } of calls) {
              if (isNew || a.numTokens + ids.length > TINY.max_position_embeddings) {
                b.dispose();
                [a, b] = [resident.stream(), lazy.stream()];
              }
              const expected = await a.read(ids, { threshold });
              const reading = await b.read(ids, { threshold });
              assert.deepEqual(facts(reading), facts(expected));
              held.read(reading, E, skip_expert === true);
              const { experts, bytesRead, weightBytes } = lazy.usage;
              const { reads, evictions, keys } = held;
              assert.deepEqual(experts, { resident: keys.length, reads, evictions });
              assert.equal(bytesRead, opened.bytesRead + reads * ofExpert);
              assert.equal(weightBytes, opened.weightBytes + keys.length * one);
              if (evictions > 0) reach('an eviction');
              if (keys.length < E * moe_layers.length && evictions === 0) reach('experts that nobody chose');
            }
          },
          { ...options, lazyExperts: { budget } },
        ),
      options,
    );
  },
  ['an eviction', 'experts that nobody chose'],
  { share: 0.25 },
);

asyncProperty(
  'wherever a source fails, a read fails or is right, and is right when it is made again',
  fc.record({
    ids: fc.uint8Array({ minLength: 1, maxLength: 8 }),
    threshold: fc.constantFrom(0.3, 0.9, 'dense' as const),
    numSlots: fc.integer({ min: 1, max: NUM_EXPERTS }),
    failing: fc.array(fc.nat(30)),
    aborting: fc.array(fc.nat(30)),
  }),
  async ({ ids, threshold, numSlots, failing, aborting }, reach) => {
    const blob = new Blob([file]);
    let controller = new AbortController();
    let numReads = Number.NEGATIVE_INFINITY; // while it is opened
    const source = {
      size: blob.size,
      stream: () => blob.stream(),
      slice: (start: number, end: number) => {
        const number = numReads++;
        if (aborting.includes(number)) controller.abort(new Error('enough'));
        const bytes = blob.slice(start, end);
        return { arrayBuffer: () => (failing.includes(number) ? Promise.reject('gone') : bytes.arrayBuffer()) };
      },
    };
    const expected = await lazily(blob, async r => facts(await r.stream().read(ids, { threshold })), {});
    await lazily(
      source,
      async runtime => {
        numReads = 0;
        const stream = runtime.stream();
        for (let tries = 0; stream.numTokens === 0; tries++) {
          assert.ok(tries <= failing.length + aborting.length);
          controller = new AbortController();
          const { signal } = controller;
          const reading = await stream.read(ids, { threshold, signal }).catch((error: Error) => {
            if (error.message === 'enough') reach('an abort');
            else {
              assert.match(`${error}`, /^SourceError: .* a Blob that broke at byte \d+: gone$/);
              reach('a failure');
            }
            assert.equal(stream.numTokens, 0);
          });
          if (reading) assert.deepEqual(facts(reading), expected);
        }
      },
      { lazyExperts: { budget: numSlots * packedBytes } },
    );
  },
  ['an abort', 'a failure'],
  { share: 0.25 },
);

test('a path, a URL, a Blob and an address give the same bits, and are let go when the runtime is', async () => {
  const same = (source: ModelSource) =>
    lazily(source, async runtime => assert.deepEqual(facts(await runtime.stream().read(ids)), residentFacts));
  await same(path);
  await same(pathToFileURL(path));
  await same(new Blob([file]));
  await serving(answering({ bytes: file }), same);
  await serving(answering({ bytes: file, cuts: [9, 9, 2000, 0, 3000, 9, 9, 9] }), same); // a cable that is pulled
  assert.ok(!numOpen(path), 'the file is closed');
});

test('opening reads what is no expert, and says how far it is', async () => {
  await serving(answering({ bytes: file }), async (address, seen) => {
    const calls: [number, number][] = [];
    const onProgress = (numBytes: number, total: number) => calls.push([numBytes, total]);
    await lazily(
      address,
      async runtime => {
        const total = file.length - NUM_EXPERTS * EXPERT_BYTES;
        assert.equal(runtime.usage.bytesRead, total);
        assert.deepEqual(calls.at(-1), [total, total]);
        assert.ok(calls.every(([numBytes, all], i) => all === total && numBytes >= (calls[i - 1]?.[0] ?? 1)));
        assert.deepEqual(runtime.usage.experts, { resident: 0, reads: 0, evictions: 0 });
        const numOpening = seen.length;
        await runtime.stream().read(ids, { threshold: 'dense' });
        assert.equal(seen.length - numOpening, 2 * NUM_EXPERTS, 'up and down of each');
        assert.deepEqual(runtime.usage.experts, { resident: NUM_EXPERTS, reads: NUM_EXPERTS, evictions: 0 });
        assert.equal(runtime.usage.bytesRead, file.length);
        await runtime.stream().read(ids, { threshold: 'dense' });
        assert.equal(seen.length - numOpening, 2 * NUM_EXPERTS, 'and none again');
      },
      { lazyExperts: {}, onProgress },
    );
  });
});

test('reads of streams take turns, so that an expert that both need is read once', async () => {
  await lazily(path, async runtime => {
    const readings = await Promise.all([1, 2, 3].map(() => runtime.stream().read(ids)));
    for (const reading of readings) assert.deepEqual(facts(reading), residentFacts);
    const chosen = readings[0].tokens[0].layers.map((_, m) => {
      return new Set(readings[0].tokens.flatMap(({ layers }) => layers[m].experts)).size;
    });
    assert.equal(
      runtime.usage.experts.reads,
      chosen.reduce((a, b) => a + b),
    );
  });
});

test('a source that fails ends the read it fails in: the stream stays, and the next call works', async () => {
  let fails = false;
  const honest = answering({ bytes: file });
  const answer: Answering = (request, response, index) => {
    if (fails) response.writeHead(403).end();
    else honest(request, response, index);
  };
  await serving(answer, address =>
    lazily(address, async runtime => {
      const stream = runtime.stream();
      const first = facts(await stream.read(ids.subarray(0, 2), { threshold: 0 }));
      fails = true;
      const before = runtime.usage.bytesRead;
      const refused = /^SourceError: .* got 403 from/;
      await assert.rejects(stream.read(ids.subarray(2), { threshold: 'dense' }), refused);
      await assert.rejects(stream.read(ids.subarray(2), { threshold: 'dense' }), refused);
      assert.deepEqual([stream.numTokens, runtime.usage.bytesRead], [2, before]);
      fails = false;
      const second = facts(await stream.read(ids.subarray(2), { threshold: 'dense' }));
      await lazily(path, async resident => {
        const other = resident.stream();
        assert.deepEqual(first, facts(await other.read(ids.subarray(0, 2), { threshold: 0 })));
        assert.deepEqual(second, facts(await other.read(ids.subarray(2), { threshold: 'dense' })));
      });
    }),
  );
});

test('a source that is another one by now is a SourceError, and its experts are not taken', async () => {
  const other = tinyModelFile({}, { seed: 2 });
  assert.equal(other.length, file.length);
  let isChanged = false;
  const [before, after] = [answering({ bytes: file }), answering({ bytes: other, headers: { etag: '"two"' } })];
  await serving(
    (request, response, index) => (isChanged ? after : before)(request, response, index),
    address =>
      lazily(address, async runtime => {
        isChanged = true;
        await assert.rejects(runtime.stream().read(ids), /^SourceError: .* got version "two" instead of "one"/);
        assert.equal(runtime.usage.experts.resident, 0);
      }),
  );
  const changing = join(folder, 'changing.safetensors');
  writeFileSync(changing, file);
  await lazily(changing, async runtime => {
    appendFileSync(changing, '.');
    await assert.rejects(runtime.stream().read(ids), /^SourceError: .* which has changed$/);
  });
});

test('a server that lies about an expert is found out', async () => {
  const honest = answering({ bytes: file });
  let lies = false;
  const answer: Answering = (request, response, index) => {
    if (lies) request.headers.range = request.headers.range!.replace(/\d+/, first => `${Number(first) + 4}`);
    honest(request, response, index);
  };
  await serving(answer, address =>
    lazily(address, async runtime => {
      lies = true;
      await assert.rejects(runtime.stream().read(ids), SourceError);
      lies = false;
      assert.deepEqual(facts(await runtime.stream().read(ids)), residentFacts);
    }),
  );
});

test('an expert with a value that is not finite, or beyond the format, is refused by name when it comes', async () => {
  const name = 'model.layers.2.mlp.experts.down_proj';
  const at = 3 * TINY.hidden_size * TINY.moe_intermediate_size + 2 * TINY.moe_intermediate_size + 1;
  for (const [value, weights, message] of [
    [Number.NaN, 'f32', `"${name}" expected finite numbers, got NaN at [3, 2, 1]`],
    [7e4, 'f16', `"${name}[3]" expected magnitudes below 65520 for f16, got 70000 at [2, 1]`],
  ] as const) {
    const bytes = tinyModelFile(
      {},
      { weights: { [name]: Array.from({ length: at + 1 }, (_, i) => (i === at ? value : 0.5)) } },
    );
    await assert.rejects(openRuntime(new Blob([bytes]), { weights }), { name: 'RangeError', message });
    await lazily(
      new Blob([bytes]),
      async runtime => {
        const stream = runtime.stream();
        await assert.rejects(stream.read(ids, { threshold: 'dense' }), { name: 'RangeError', message });
        await assert.rejects(stream.read(ids, { threshold: 'dense' }), { name: 'RangeError', message });
        assert.equal(stream.numTokens, 0);
        assert.equal(runtime.usage.experts.resident, NUM_EXPERTS - 1);
      },
      { weights, lazyExperts: {} },
    );
  }
});

/** A server that, once it is told to, keeps whoever asks waiting. */
async function withSilence(
  use: (address: string, silence: { isOn: boolean; asked: Promise<unknown> }) => Promise<void>,
) {
  const honest = answering({ bytes: file });
  let tell = (_: ServerResponse) => {};
  const silence = {
    isOn: false,
    asked: new Promise<ServerResponse>(resolve => {
      tell = resolve;
    }),
  };
  const answer: Answering = (request, response, index) => {
    if (silence.isOn) tell(response);
    else honest(request, response, index);
  };
  await serving(answer, address => use(address, silence));
}

test('an abort ends the waiting for an expert: the stream stays, and the next call works', async () => {
  const reason = new Error('enough');
  await withSilence((address, silence) =>
    lazily(address, async runtime => {
      const stream = runtime.stream();
      const aborting = new AbortController();
      silence.isOn = true;
      const waiting = stream.read(ids, { signal: aborting.signal });
      const next = stream.read(ids);
      const response = (await silence.asked) as ServerResponse;
      const closed = once(response, 'close');
      silence.isOn = false;
      aborting.abort(reason);
      await assert.rejects(waiting, reason);
      await closed;
      assert.deepEqual(facts(await next), residentFacts);
      assert.equal(stream.numTokens, ids.length);
    }),
  );
  const early = AbortSignal.abort(reason);
  await assert.rejects(openRuntime(path, { lazyExperts: {}, signal: early }), reason);
  const late = new AbortController();
  await assert.rejects(
    openRuntime(path, { lazyExperts: {}, signal: late.signal, onProgress: () => late.abort(reason) }),
    reason,
  );
  assert.ok(!numOpen(path), 'the file is closed');
  // A signal of the opening has nothing to do with reads.
  const opening = new AbortController();
  await lazily(
    path,
    async runtime => {
      opening.abort(reason);
      assert.deepEqual(facts(await runtime.stream().read(ids)), residentFacts);
    },
    { lazyExperts: {}, signal: opening.signal },
  );
});

test('dispose ends the waiting for an expert, and lets the source go', async () => {
  await withSilence(async (address, silence) => {
    const runtime = await openRuntime(address, { lazyExperts: {} });
    silence.isOn = true;
    const waiting = runtime.stream().read(ids);
    const rejected = assert.rejects(waiting, /^Error: "model" expected one in use, got one that was disposed of$/);
    const response = (await silence.asked) as ServerResponse;
    const closed = once(response, 'close');
    runtime.dispose();
    runtime.dispose();
    await rejected;
    await closed;
  });
});

for (const [name, source, budget] of [
  ['the shipped model', new URL('../../models/xmoe-gpt.safetensors', import.meta.url), 1e6],
  ['a text of several batches', new Blob([tinyModelFile({ max_position_embeddings: 300 })]), packedBytes],
] as const) {
  test(`on threads and in groups, the same bits: ${name}`, async () => {
    const text = readFileSync(new URL('../../models/text/moby.txt', import.meta.url));
    const read = async (options: RuntimeOptions) =>
      lazily(
        source,
        async runtime => {
          const reading = await runtime.stream().read(text.subarray(0, Math.min(300, runtime.config.contextLength)));
          return { ...facts(reading), evictions: runtime.usage.experts.evictions };
        },
        { deterministic: true, ...options },
      );
    const { evictions: _, ...expected } = await read({});
    for (const threads of [1, 2]) {
      const { evictions, ...got } = await read({ threads, lazyExperts: { budget } });
      assert.deepEqual(got, expected);
      assert.ok(evictions > 0);
    }
  });
}

test('after a worker died, the experts that were there still are', async () => {
  await lazily(
    path,
    async runtime => {
      assert.equal(runtime.info.threads, 2);
      const stream = runtime.stream();
      assert.deepEqual(facts(await stream.read(ids)), residentFacts);
      const { reads } = runtime.usage.experts;
      startedWorkers.at(-1)!.terminate();
      let numFailed = 0;
      for (let i = 0; i < 500 && numFailed === 0; i++) {
        stream.clear();
        await stream.read(ids).catch(error => {
          assert.equal(error.name, 'WorkerError');
          numFailed++;
        });
      }
      assert.equal(numFailed, 1);
      stream.clear();
      assert.deepEqual(facts(await stream.read(ids)), residentFacts);
      assert.equal(runtime.usage.experts.reads, reads);
      stream.clear();
      await stream.read(ids, { threshold: 'dense' });
      assert.equal(runtime.usage.experts.reads, NUM_EXPERTS);
    },
    { threads: 2, lazyExperts: {} },
  );
});

test('a model without experts is read at once', async () => {
  const bytes = tinyModelFile({ moe_layers: [] });
  await lazily(
    new Blob([bytes]),
    async runtime => {
      await runtime.stream().read(ids);
      assert.equal(runtime.usage.bytesRead, bytes.length);
      assert.deepEqual(runtime.usage.experts, { resident: 0, reads: 0, evictions: 0 });
    },
    { lazyExperts: { budget: 1 } },
  );
});

test('budgets and sources that will not do are refused by name', async () => {
  const open = (lazyExperts: unknown, source: ModelSource = path) =>
    openRuntime(source, { lazyExperts } as RuntimeOptions);
  const wrong: [unknown, RegExp][] = [
    [7, /^TypeError: "options.lazyExperts" expected an object, got 7$/],
    [{ bugdet: 7 }, /^TypeError: "options.lazyExperts" expected none but budget, got "bugdet"$/],
    [{ budget: '7' }, /^TypeError: "options.lazyExperts.budget" expected an integer of at least 1, got "7"$/],
    [{ budget: 0 }, /^RangeError: "options.lazyExperts.budget" expected an integer of at least 1, got 0$/],
    [
      { budget: packedBytes - 1 },
      /^RangeError: "options.lazyExperts.budget" expected at least \d+ bytes, one expert's, got /,
    ],
  ];
  for (const [lazyExperts, message] of wrong) await assert.rejects(open(lazyExperts), message);
  assert.ok(!numOpen(path), 'the file is closed');
  await assert.rejects(
    open({}, new Blob([file]).stream()),
    /^TypeError: "source" expected a path, URL or Blob, of which parts can be read, got a stream$/,
  );
  await lazily(path, async runtime => assert.deepEqual(facts(await runtime.stream().read(ids)), residentFacts), {
    lazyExperts: { budget: packedBytes },
  });
});
