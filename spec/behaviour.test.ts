/** What an implementation does besides answering: each misbehaviour is its own finding, what stays within the bounds a property. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { referenceF32 } from 'xmoe';
import { layerOfSizes } from 'xmoe/cases';
import {
  examine,
  type Finding,
  type Implementation,
  ImplementationError,
  implementationOf,
  type LayerCall,
  type Outputs,
  search,
} from 'xmoe/oracle';

const honest = implementationOf(referenceF32);
const { gradY, ...call } = layerOfSizes(5, 4, 3, 2, { storage: 'f32' });

/** Honest but for what `spoil` does to its outputs at the n-th call, from 0. */
function spoilt(spoil: (outputs: Outputs, call: LayerCall, n: number) => void): Implementation {
  let n = 0;
  return {
    ...honest,
    name: 'spoilt',
    async run(given) {
      const outputs = new Map(await honest.run(given));
      spoil(outputs, given, n++);
      return outputs;
    },
  };
}

/** Adds to y[t, 0] by a share of the largest |y|, far above a bound or far below. */
function addToY(outputs: Outputs, t: number, share: number): void {
  const { shape, data } = outputs.get('y')!;
  const largest = Math.max(...Array.from(data, Math.abs));
  const changed = Float64Array.from(data);
  changed[t * shape[1]] += share * largest;
  outputs.set('y', { shape, data: changed });
}

const [WRONG, WITHIN] = [0.1, 1e-10];

async function findings(implementation: Implementation): Promise<[string, Finding[]]> {
  const conformance = await examine(implementation, call);
  return [conformance.verdict, [...conformance.findings]];
}

test('an honest implementation has no findings', async () => {
  assert.deepEqual(await findings(honest), ['conforms', []]);
});

const cases: [what: string, kind: Finding['kind'], detail: RegExp, of: (share: number) => Implementation][] = [
  [
    'differs the second time',
    'not repeatable',
    /^the second time, y\[0, 0\] was .* and is /,
    share => spoilt((outputs, _, n) => n === 1 && addToY(outputs, 0, share)),
  ],
  [
    'differs where a token is alone',
    'batch-dependent',
    /^token 4 alone: y\[0, 0\] was /,
    share => spoilt((outputs, { x }) => x.rows === 1 && addToY(outputs, 0, share)),
  ],
  [
    'differs in half a batch',
    'batch-dependent',
    /^the first 3 tokens alone: y\[1, 0\] was /,
    share => spoilt((outputs, { x }) => x.rows === 3 && addToY(outputs, 1, share)),
  ],
  [
    'differs after a call that overflows',
    'poisoned buffer',
    /^after a call whose values overflow, y\[2, 0\] was /,
    share => {
      let poisoned = false;
      return spoilt((outputs, { weights }) => {
        if (poisoned) addToY(outputs, 2, share);
        poisoned ||= weights.up[0].data[0] > 1e20;
      });
    },
  ],
];

for (const [what, kind, detail, of] of cases) {
  test(`what ${what} beyond the bound is a fault: ${kind}`, async () => {
    const [verdict, found] = await findings(of(WRONG));
    assert.equal(verdict, 'does not conform');
    assert.deepEqual([found.length, found[0].kind, found[0].severity], [1, kind, 'fault']);
    assert.match(found[0].detail, detail);
    assert.equal(found[0].stage, 'combine');
  });

  test(`what ${what} within the bound is a property: ${kind}`, async () => {
    const [verdict, found] = await findings(of(WITHIN));
    assert.equal(verdict, 'conforms');
    assert.deepEqual([found.length, found[0].kind, found[0].severity], [1, kind, 'property']);
  });
}

test('a search finds that the second call is wrong, and shrinks to the smallest that shows it', async () => {
  const seen = new WeakSet<object>();
  const implementation = spoilt((outputs, given) => {
    if (seen.has(given) && given.x.rows > 1) addToY(outputs, 1, WRONG);
    seen.add(given);
  });
  const { failure } = await search(implementation, { runs: 200, wanted: { routers: ['dense'] } });
  const { call: smallest, conformance } = failure!.smallest;
  assert.equal(failure!.repeats, true);
  assert.deepEqual(
    conformance.findings.map(({ kind, severity, stage }) => [kind, severity, stage]),
    [['not repeatable', 'fault', 'combine']],
  );
  assert.deepEqual([smallest.x.rows, smallest.config.numExperts, smallest.x.cols], [2, 1, 1]);
});

test('a search tells that a failure did not come again', async () => {
  let spoiling = true;
  const implementation = spoilt((outputs, given, n) => {
    if (!spoiling || n < 40 || given.x.rows < 2) return;
    spoiling = false;
    outputs.set('y', { shape: [1, 1], data: Float64Array.of(0) });
  });
  const { failure } = await search(implementation, { runs: 200 });
  assert.equal(failure!.repeats, false);
  assert.deepEqual(failure!.smallest, { call: failure!.call, conformance: failure!.conformance });
});

test('an input that is modified is a fault, and harms neither the verdict nor the caller', async () => {
  const implementation = spoilt((_, { x }) => {
    x.data[1] = 0;
  });
  const before = call.x.data.slice();
  const [verdict, found] = await findings(implementation);
  assert.equal(verdict, 'does not conform');
  assert.deepEqual(found, [
    {
      kind: 'input modified',
      severity: 'fault',
      detail: `"x"[1] was ${before[1]} before the call and is 0 after it`,
    },
  ]);
  assert.deepEqual(call.x.data, before);
});

test('an implementation that gives the same memory again is judged by what it held', async () => {
  const y = new Float64Array(call.x.data.length);
  const implementation = spoilt(outputs => {
    const { shape, data } = outputs.get('y')!;
    y.fill(0);
    y.set(data);
    outputs.set('y', { shape, data: y.subarray(0, data.length) });
  });
  assert.deepEqual(await findings(implementation), ['conforms', []]);
});

test('what no stage of the router asks for is passed over, whatever its shape', async () => {
  const { gradY: _, ...hashed } = layerOfSizes(5, 4, 3, 2, { storage: 'f32', router: 'hash' });
  const implementation = spoilt(outputs => outputs.set('logits', { shape: [3], data: Float64Array.of(1, 2, 3) }));
  assert.equal((await examine(implementation, hashed)).verdict, 'conforms');
});

test('an implementation that throws crashed, and one that refuses did not', async () => {
  const throws = { ...honest, run: () => Promise.reject(new RangeError('no kernel for m = 2')) };
  const [verdict, found] = await findings(throws);
  assert.equal(verdict, 'does not conform');
  assert.deepEqual(found, [{ kind: 'crashed', severity: 'fault', detail: 'it threw RangeError: no kernel for m = 2' }]);
  const refused = ['conforms', [{ kind: 'refused', severity: 'property', detail: 'no swiglu' }]];
  assert.deepEqual(await findings({ ...honest, refuses: () => 'no swiglu' }), refused);
  const run = () => Promise.reject(new ImplementationError('refused', 'no swiglu'));
  assert.deepEqual(await findings({ ...honest, run }), refused);
});

test('a search that is stopped reports what it did', async () => {
  const stop = new AbortController();
  const done: number[] = [];
  const report = await search(honest, {
    runs: 1000,
    signal: stop.signal,
    onProgress: progress => {
      done.push(progress.done);
      if (progress.done === 5) stop.abort();
    },
  });
  assert.deepEqual(done, [0, 1, 2, 3, 4, 5]);
  assert.deepEqual([report.interrupted, report.tally.numCalls, report.failure], [true, 5, undefined]);
});
