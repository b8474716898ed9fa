/** Threads change no bit, hang never, and leave nothing behind. What only Node shows of them is in wasm-node.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { forward, type Matrix } from 'xmoe';
import { type Layer, layerOfSizes } from 'xmoe/cases';
import { activationNames, layers, noDrop, routerNames } from 'xmoe/spec';
import { bits } from './bits.js';
import { property } from './property.js';
import { begun, slowLayer, withThreads } from './slow-layer.js';

const [one, ...several] = await Promise.all([1, 2, 3, 5].map(withThreads));
const [two, three] = several;
const all = [one, ...several];

/** A page that is not cross-origin isolated has one thread; what needs others is left out there. */
const onThreads = { skip: two.info.notUsed.threads };

property(
  'any number of threads gives the same bits',
  layers(),
  ({ x, weights, config, inputs }, reach) => {
    const loaded = all.map(backend => backend.load(weights, config));
    const [expected, ...others] = loaded.map(layer => bits(layer.forward(x, inputs)));
    for (const y of others) assert.equal(y, expected);
    assert.equal(bits(loaded[1].forward(x, inputs)), expected);
    for (const layer of loaded) layer.dispose();
    reach(config.router);
    reach(config.activation);
  },
  [...routerNames, ...activationNames],
);

property(
  'on threads too, with no drops the bits of a token do not depend on its batch',
  layers({ routers: ['threshold', 'dense', 'switch', 'base_eval'], capacities: noDrop, masks: ['absent'] }),
  ({ x, weights, config }) => {
    const loaded = three.load(weights, config);
    const y = loaded.forward(x);
    const row = (a: Matrix, t: number) => ({ rows: 1, cols: a.cols, data: a.data.slice(t * a.cols, (t + 1) * a.cols) });
    for (let t = 0; t < x.rows; t += 7) assert.equal(bits(loaded.forward(row(x, t))), bits(row(y, t)));
    loaded.dispose();
  },
  [],
  { share: 0.25 },
);

test('forwardAsync, which leaves all work to workers, gives the bits of forward', async () => {
  const drawn: Layer[] = routerNames.map(router => layerOfSizes(200, 9, 40, 21, { router }));
  for (const { x, weights, config, inputs } of [...drawn, ...fc.sample(layers(), 60)]) {
    const loaded = all.map(backend => backend.load(weights, config));
    const expected = bits(loaded[0].forward(x, inputs));
    for (const layer of loaded) assert.equal(bits(await layer.forwardAsync(x, inputs)), expected);
    for (const layer of loaded) layer.dispose();
  }
});

test('large layers, whose tasks are many, have the same bits for every router', () => {
  for (const router of routerNames) {
    const { x, weights, config, inputs } = layerOfSizes(400, 12, 130, 70, { router });
    const [expected, ...others] = all.map(backend => bits(backend.load(weights, config).forward(x, inputs)));
    for (const y of others) assert.equal(y, expected, router);
  }
});

test('more threads than tokens, experts and columns, and calls without tokens', async () => {
  const many = await withThreads(7);
  for (const numTokens of [0, 1, 2]) {
    const { x, weights, config } = layerOfSizes(numTokens, 1, 3, 2);
    const expected = bits(one.load(weights, config).forward(x));
    const layer = many.load(weights, config);
    assert.equal(bits(layer.forward(x)), expected);
    assert.equal(bits(await layer.forwardAsync(x)), expected);
  }
  many.dispose();
});

test('layers and backends work side by side; a layer in use by forwardAsync refuses forward', onThreads, async () => {
  const cases = [1, 2, 3].map(seed => layerOfSizes(150, 6, 60, 33, { seed }));
  const expected = cases.map(({ x, weights, config }) => bits(one.load(weights, config).forward(x)));
  const [ofTwo, ofThree] = [two, three].map(backend =>
    cases.map(({ weights, config }) => backend.load(weights, config)),
  );
  const pending = [...ofTwo, ...ofThree, ...ofTwo].map((layer, i) => layer.forwardAsync(cases[i % 3].x));
  assert.throws(() => ofTwo[0].forward(cases[0].x), /"layer" expected no forwardAsync under way/);
  const { weights, config, x } = cases[1];
  assert.equal(bits(two.load(weights, config).forward(x)), expected[1]); // another layer, while the threads are taken
  assert.deepEqual((await Promise.all(pending)).map(bits), [...expected, ...expected, ...expected]);
  assert.equal(bits(ofTwo[0].forward(cases[0].x)), expected[0]);
});

test('errors of a call are those of one thread, and leave the threads in order', async () => {
  const { x, weights, config } = layerOfSizes(30, 4, 20, 10);
  const layer = two.load(weights, config);
  const huge = { ...x, data: x.data.map(() => 3e38) };
  const refusal = /expected finite/;
  assert.throws(() => layer.forward(huge), refusal);
  await assert.rejects(layer.forwardAsync(huge), refusal);
  await assert.rejects(layer.forwardAsync({ ...x, cols: 3 }), /"x" expected/);
  assert.equal(bits(layer.forward(x)), bits(one.load(weights, config).forward(x)));
});

test('a worker that fails says why', onThreads, async () => {
  const { backend, layer, x, newest } = await slowLayer();
  newest().postMessage('neither memory nor module');
  let report = '';
  for (let i = 0; i < 500 && !report; i++) {
    await layer.forwardAsync(x).catch(error => {
      report = String(error);
    });
  }
  assert.match(report, /WorkerError: .* got a worker that failed: \w+Error: /);
  backend.dispose();
});

test('dispose ends the calls that wait for threads', onThreads, async () => {
  const { backend, layer, x } = await slowLayer();
  const pending = [layer.forwardAsync(x), layer.forwardAsync(x)];
  const rejected = Promise.all([
    assert.rejects(pending[0], { name: 'WorkerError', message: /disposed of/ }),
    assert.rejects(pending[1], /disposed of/), // which had not begun
  ]);
  await begun();
  backend.dispose();
  backend.dispose();
  await rejected;
  assert.throws(() => layer.forward(x), /"layer" expected one in use/);
});

test('a layer disposed of during its call lets the call end', onThreads, async () => {
  const { backend, layer, x, expected } = await slowLayer();
  const pending = layer.forwardAsync(x);
  await begun();
  layer.dispose();
  assert.equal(bits(await pending), expected);
  assert.throws(() => layer.forward(x), /"layer" expected one in use/);
  backend.dispose();
});

test('bad numbers of threads are refused, and the backend says what it uses', async () => {
  for (const threads of [0, -1, 1.5, Number.NaN, 257]) {
    await assert.rejects(withThreads(threads), /RangeError: "options.threads" expected an integer from 1 to 256, got/);
  }
  // @ts-expect-error: a caller without types
  await assert.rejects(withThreads('2'), /TypeError: "options.threads" expected an integer/);
  assert.deepEqual([one.info.threads, one.info.notUsed.threads], [1, 'options.threads is 1']);
  for (const [i, { info }] of several.entries()) {
    if (info.threads === 1) assert.match(info.notUsed.threads!, /SharedArrayBuffer is missing/);
    else assert.deepEqual([info.threads, info.notUsed.threads], [[2, 3, 5][i], undefined]);
  }
});

test('the stages of a trace, and a model’s fused calls, have the same bits on threads', () => {
  for (const router of routerNames) {
    const { x, weights, config, inputs } = layerOfSizes(100, 7, 30, 20, { router });
    const expected = forward(one, x, weights, config, inputs);
    for (const backend of several) {
      const trace = forward(backend, x, weights, config, inputs);
      assert.deepEqual(
        [trace.routing.probs, trace.experts.hidden, trace.experts.out, trace.y].map(bits),
        [expected.routing.probs, expected.experts.hidden, expected.experts.out, expected.y].map(bits),
      );
      const { y, plan } = backend.fused!(x, weights, config, inputs);
      assert.equal(bits(y), bits(expected.y));
      assert.deepEqual(plan, expected.plan);
    }
  }
});
