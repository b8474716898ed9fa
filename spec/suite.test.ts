/** The importable suite: it passes right layers, fails wrong ones by the rules that they break, and says how to repeat it. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { reference, referenceF32 } from 'xmoe';
import { type Implementation, implementationOf } from 'xmoe/oracle';
import { describeXmoe, propertiesOf, type SuiteOptions, type Test } from 'xmoe/spec';
import { wasmBackend } from 'xmoe/wasm';
import { RUNS } from './environment.js';
import { faults } from './faults/index.js';
import { layerOfParts } from './faults/parts.js';

const runs = Math.ceil(RUNS / 20);

describeXmoe(implementationOf({ ...referenceF32, ...(reference.backward && { backward: reference.backward }) }), {
  test: named('reference-f32'),
  gradients: true,
  runs,
});
const wasm = await wasmBackend({ deterministic: true });
describeXmoe(implementationOf(wasm), { test: named('wasm'), runs });

/** The runner's `test`, with names that say of whom. */
function named(who: string): Test {
  return (name, body) => test(`${who}: ${name}`, body);
}

type Outcomes = { readonly name: string; readonly error: string | undefined; readonly skipped: boolean }[];

/** What the suite says of an implementation, test by test. */
async function outcomesOf(implementation: Implementation, options: Omit<SuiteOptions, 'test'>): Promise<Outcomes> {
  const defined: { name: string; body: (() => Promise<void>) | undefined }[] = [];
  const collect: Test = (name, body) => defined.push({ name, body });
  collect.skip = name => defined.push({ name, body: undefined });
  describeXmoe(implementation, { test: collect, ...options });
  const outcomes: Outcomes = [];
  for (const { name, body } of defined) {
    const error = await body?.().then(
      () => undefined,
      (reason: Error) => reason.message,
    );
    outcomes.push({ name, error, skipped: body === undefined });
  }
  return outcomes;
}

function faulty(name: string): Implementation {
  const fault = faults.find(one => one.name === name);
  assert.ok(fault, name);
  return fault.make();
}

const failing = (outcomes: Outcomes) =>
  outcomes.filter(({ error }) => error !== undefined).map(({ name }) => name.split(' ')[0]);

test('every rule that outputs can show is a property, and no name stands twice', () => {
  const rules = [
    ...readFileSync(new URL('../../spec/SEMANTICS.md', import.meta.url), 'utf8').matchAll(/^### ([RDECLG]\d+) /gm),
  ];
  const names = ['D4', ...propertiesOf(true).map(({ name }) => name)];
  assert.deepEqual(
    rules.map(([, id]) => id).filter(id => !names.some(name => name.split(' ')[0] === id)),
    [],
  );
  assert.equal(new Set(names).size, names.length);
});

/** Rules that a fault breaks in any case, and rules that it leaves whole. */
const broken: Readonly<Record<string, { fails: readonly string[]; passes: readonly string[]; gradients?: boolean }>> = {
  '≤ for < at the threshold (“exceed”)': { fails: ['D2', 'D4'], passes: ['R1', 'R2', 'D5', 'D12', 'E1', 'C3', 'L1'] },
  'capacity rounded down': { fails: ['D11', 'D12'], passes: ['R1', 'D2', 'D14', 'E2', 'C1', 'L3'] },
  'gate and up swapped': { fails: ['E2', 'E3'], passes: ['R1', 'D2', 'D11', 'E1', 'L1'] },
  'the output bias outside the weighting': { fails: ['C1', 'C3'], passes: ['R2', 'D2', 'E1', 'L1'] },
  'without the factor E': { fails: ['L1', 'L3'], passes: ['R2', 'D2', 'E1', 'C1', 'L4'] },
  'padding chooses too': { fails: ['R3', 'D15'], passes: ['R2', 'D12', 'E1', 'L1'] },
  'BASE: the slope w(1 − w) is missing': { fails: ['G4'], passes: ['C4', 'G2', 'G5'], gradients: true },
  'x is modified in place': { fails: ['R4', 'E1'], passes: ['D4'] },
};

for (const [name, { fails, passes, gradients = false }] of Object.entries(broken)) {
  test(`the suite names the rules that are broken: ${name}`, async () => {
    const failed: string[] = [];
    for (const rule of [...fails, ...passes]) {
      failed.push(...failing(await outcomesOf(faulty(name), { gradients, seed: 3, runs: 60, only: `${rule} ` })));
    }
    assert.deepEqual(
      fails.filter(rule => !failed.includes(rule)),
      [],
      `failed: ${failed}`,
    );
    assert.deepEqual(
      passes.filter(rule => failed.includes(rule)),
      [],
      `failed: ${failed}`,
    );
  });
}

test('a failure prints its seed and path, which repeat that very case', async () => {
  const name = 'priority by position';
  const [first] = await outcomesOf(faulty(name), { only: 'D12', seed: 11, runs: 100 });
  const [, rule, seed, path] = /XMOE_ONLY='(.+)' XMOE_SEED=(\S+) XMOE_PATH=(\S+)/.exec(first.error ?? '') ?? [];
  assert.deepEqual([rule, seed], [first.name, '11'], first.error);
  const [again, ...others] = await outcomesOf(faulty(name), { only: rule, seed: Number(seed), path });
  const recipeOf = (message = '') => /layerOf\((.+)\)/.exec(message)?.[1];
  assert.equal(others.length, 0);
  assert.equal(recipeOf(again.error), recipeOf(first.error));
  const [right] = await outcomesOf(layerOfParts('right', {}), { only: rule, seed: Number(seed), path });
  assert.equal(right.error, undefined);
});

test('rules whose layers are refused are skipped, with the reason', async () => {
  const some: Implementation = {
    ...layerOfParts('some', {}),
    refuses: ({ config }) => (config.router === 'threshold' ? undefined : `no router ${config.router}`),
  };
  const outcomes = await outcomesOf(some, { seed: 1, runs: 5 });
  const skipped = outcomes.filter(outcome => outcome.skipped).map(outcome => outcome.name);
  assert.ok(
    skipped.some(name => name.startsWith('D9 ') && name.includes('no router base_train')),
    skipped.join('\n'),
  );
  assert.ok(!skipped.some(name => name.startsWith('D2 ')));
  assert.deepEqual(failing(outcomes), []);
});
