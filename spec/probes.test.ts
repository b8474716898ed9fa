/** Exact probes: which rule an implementation follows where arithmetic is exact, and which of equals it takes first. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { reference, referenceF32 } from 'xmoe';
import { conform, type Implementation, implementationOf, probe, probesFor, type RuleName } from 'xmoe/oracle';
import { withoutOutputs } from './faults/behaviour.js';
import { faults } from './faults/index.js';
import { innocents } from './faults/innocents.js';

function made(list: readonly { name: string; make(): Implementation }[], name: string): Implementation {
  const found = list.find(one => one.name === name);
  assert.ok(found, name);
  return found.make();
}

/** The same, but it hands over y alone. */
function silent(implementation: Implementation): Implementation {
  const { name, arithmetic } = implementation;
  const spoken = ['logits', 'probs', 'selected', 'kept', 'combine', 'expert_out', 'load_balancing_loss'];
  return { name, arithmetic, run: async call => withoutOutputs(await implementation.run(call), spoken) };
}

test('D4 the reference follows its own rule in every probe, the lowest index first', async () => {
  for (const backend of [reference, referenceF32]) {
    const report = await probe(implementationOf(backend));
    assert.deepEqual([report.rule, report.ties], ['XMoE', 'lowest index first']);
    for (const { probe: one, expected, got } of report.results) {
      assert.equal(typeof got !== 'string' && got.experts.length, expected, one.name);
    }
  }
});

test('D2 D3 D4 the probes expect what the rules say', async () => {
  const { results } = await probe(implementationOf(reference));
  const expected = Object.fromEntries(results.map(({ probe: { name }, expected: count }) => [name, count]));
  assert.equal(expected['p = [0.25, 0.25, 0.25, 0.25], τ = 0.25'], 1); // the mass of the first is τ
  assert.equal(expected['p = [0.25, 0.25, 0.25, 0.25], τ = 0.375'], 2);
  assert.equal(expected['p = [0.25, 0.25, 0.25, 0.25], τ = 0.5'], 2);
  assert.equal(expected['p = [0.25, 0.25, 0.25, 0.25], τ = 0'], 1); // forced
  assert.equal(expected['p = [0, 0, 1, 0], τ = 1'], 1); // saturated
  assert.equal(expected['p = [0, 0, 1, 0], τ = 1.5'], 4); // tails of 0 included
});

const rules: Readonly<Record<string, RuleName>> = {
  '≤ for < at the threshold (“exceed”)': 'exceed (Dynamic MoE): ≤ for <',
  'the crossing expert lost (“within”)': 'within (top-p): the crossing expert is lost',
  'the first expert is not forced': 'XMoE, but the first expert is not forced',
  'τ = 1 taken for every expert': 'XMoE, but τ = 1 is every expert',
  'τ > 1 loses the experts of probability 0': 'XMoE, but experts of probability 0 are never taken',
};

for (const [name, rule] of Object.entries(rules)) {
  test(`D4 a probe tells the rule: ${name}`, async () => {
    assert.equal((await probe(made(faults, name))).rule, rule);
  });
}

test('D4 y alone tells the relatives from XMoE, in all but experts of probability 0', async () => {
  for (const name of ['≤ for < at the threshold (“exceed”)', 'the crossing expert lost (“within”)']) {
    assert.equal((await probe(silent(made(faults, name)))).rule, rules[name]);
  }
  assert.equal((await probe(silent(implementationOf(referenceF32)))).rule, 'XMoE');
});

test('D4 what follows no known rule has none, and shows what it took', async () => {
  const { rule, results } = await probe(made(faults, 'at least two experts for a token'));
  assert.equal(rule, undefined);
  assert.ok(results.some(({ expected, got }) => typeof got !== 'string' && got.experts.length > expected));
});

test('D1 which of equals comes first is found out, and conforms', async () => {
  const orders = {
    'of equals the highest index first': 'highest index first',
    'of equals one or the other': 'another order',
  };
  for (const [name, ties] of Object.entries(orders)) {
    const implementation = made(innocents, name);
    const report = await probe(implementation);
    assert.deepEqual([report.rule, report.ties], ['XMoE', ties]);
    for (const { call } of await probesFor(implementation)) {
      const { verdict } = conform(await implementation.run(call), call, implementation.arithmetic);
      assert.equal(verdict, 'conforms');
    }
  }
});

test('D4 a relative conforms in no probe that tells it apart', async () => {
  const implementation = made(faults, '≤ for < at the threshold (“exceed”)');
  const { results } = await probe(implementation);
  for (const { probe: one, expected, got } of results) {
    const conformance = conform(await implementation.run(one.call), one.call, implementation.arithmetic);
    const isRight = typeof got !== 'string' && got.experts.length === expected;
    assert.equal(conformance.verdict, isRight ? 'conforms' : 'does not conform', one.name);
    if (!isRight) assert.equal(conformance.blamed, 'selection');
  }
});

test('D4 without a threshold router there is no probe; one that crashes says so', async () => {
  const honest = implementationOf(reference);
  const refusing: Implementation = { ...honest, refuses: () => 'no such router' };
  assert.deepEqual(await probe(refusing), { results: [] });
  const onlySilu: Implementation = {
    ...honest,
    refuses: ({ config }) => (config.activation === 'silu' ? undefined : 'no'),
  };
  assert.equal((await probe(onlySilu)).rule, 'XMoE');
  const crashing: Implementation = {
    ...honest,
    run() {
      throw new Error('out of memory');
    },
  };
  const { results, rule } = await probe(crashing);
  assert.deepEqual([rule, new Set(results.map(({ got }) => got))], [undefined, new Set(['out of memory'])]);
});
