/** The oracle against the catalogue: every fault caught and blamed on its stage, no innocent accused. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Conformance,
  callOf,
  conform,
  describe,
  examine,
  type Implementation,
  type LayerCall,
  type Outputs,
  search,
} from 'xmoe/oracle';
import { RUNS } from './environment.js';
import { behaviourFaults } from './faults/behaviour.js';
import { type Fault, faults } from './faults/index.js';
import { innocents, moderateInnocents } from './faults/innocents.js';
import { layerOfParts } from './faults/parts.js';

const SEED = Number(process.env.SEED ?? 1);

/** Within so many cases a fault must show. */
const LIMIT = 2000;

interface Caught {
  /** Cases needed. */
  readonly cases: number;
  readonly conformance: Conformance;
}

/** What is to blame: the stage, or the kinds of what was found besides. */
function blamedIn({ blamed, findings }: Conformance): string[] {
  const kinds = findings.filter(({ severity }) => severity === 'fault').map(({ kind }) => kind);
  return blamed === undefined ? kinds : [blamed, ...kinds];
}

function isBlamedRight(fault: Fault, conformance: Conformance): boolean {
  const allowed: readonly string[] = fault.blamed;
  return blamedIn(conformance).some(blame => allowed.includes(blame));
}

const honest = { f32: layerOfParts('honest', {}, 'f32'), f64: layerOfParts('honest', {}, 'f64') };

/**
 * All faults at once, case by case, until each has shown itself. The honest layer conforms in every case; an answer that is
 * its own, bit for bit, needs no second verdict.
 */
async function catchAll(list: readonly Fault[], seed: number): Promise<Map<Fault, Caught>> {
  const caught = new Map<Fault, Caught>();
  const made = list.map(fault => ({ fault, implementation: fault.make() }));
  for (let index = 0; index < LIMIT && caught.size < list.length; index++) {
    const answers = new Map<string, { call: LayerCall; honestly: Outputs }>();
    for (const { fault, implementation } of made) {
      if (caught.has(fault)) continue;
      const format = implementation.arithmetic.name === 'f64' ? 'f64' : 'f32';
      const key = `${format} ${fault.gradients}`;
      if (!answers.has(key)) {
        const call = callOf(seed, index, {}, fault.gradients);
        const honestly = await honest[format].run(call);
        answers.set(key, { call, honestly });
        assert.equal(conform(honestly, call, honest[format].arithmetic).verdict, 'conforms', `honest, case ${index}`);
      }
      const { call, honestly } = answers.get(key)!;
      if (await isSame(implementation, call, honestly)) continue;
      const conformance = await examine(implementation, call, { behaviours: [] });
      if (conformance.verdict === 'does not conform') caught.set(fault, { cases: index + 1, conformance });
    }
  }
  return caught;
}

async function isSame(implementation: Implementation, call: LayerCall, honestly: Outputs): Promise<boolean> {
  try {
    const outputs = await implementation.run(call);
    return [...honestly].every(([name, { shape, data }]) => {
      const other = outputs.get(name);
      return other?.shape.join() === shape.join() && data.every((v: number, i: number) => Object.is(v, other.data[i]));
    });
  } catch {
    return false;
  }
}

/** Hands over y and nothing else. */
function justY({ name, arithmetic, run }: Implementation): Implementation {
  return { name, arithmetic, run: async call => new Map([['y', (await run(call)).get('y')!]]) };
}

/** By the search that `xmoe check` makes: it asks again, in parts, and after calls that overflow. */
async function catchBySearch(list: readonly Fault[], seed: number): Promise<Map<Fault, Caught>> {
  const caught = new Map<Fault, Caught>();
  for (const fault of list) {
    const options = { seed, runs: LIMIT, gradients: fault.gradients, shrinkLimits: { runs: 0 } };
    const { failure } = await search(fault.make(), options);
    if (failure) caught.set(fault, { cases: failure.index + 1, conformance: failure.conformance });
  }
  return caught;
}

const isOfBehaviour = (fault: Fault) => behaviourFaults.includes(fault) || fault.blamed.includes('not repeatable');
const isLong = RUNS >= 2000;
const pure = isLong ? [] : faults.filter(fault => !isOfBehaviour(fault));

test('every planted fault is caught within 2,000 cases, and the right stage is blamed', async t => {
  assert.ok(faults.length >= 80);
  assert.equal(new Set(faults.map(({ name }) => name)).size, faults.length, 'a name stands twice');
  const caught = new Map([
    ...(await catchAll(pure, SEED)),
    ...(await catchBySearch(
      faults.filter(fault => !pure.includes(fault)),
      SEED,
    )),
  ]);
  const needed = [...caught.values()].map(({ cases }) => cases).sort((a, b) => a - b);
  const share = (part: number) => needed[Math.min(needed.length - 1, Math.floor(part * needed.length))];
  t.diagnostic(
    `seed ${SEED}: ${caught.size} of ${faults.length} faults; cases needed: median ${share(0.5)}, nine of ten ${share(0.9)}, all ${needed.at(-1)}`,
  );
  if (isLong)
    for (const [{ name, source }, { cases, conformance }] of caught)
      t.diagnostic(`${cases} ${name} (${source}): ${blamedIn(conformance)}`);
  const missed = faults.filter(fault => !caught.has(fault)).map(({ name }) => `not caught: ${name}`);
  const wrong = [...caught].filter(([fault, { conformance }]) => !isBlamedRight(fault, conformance));
  const misjudged = wrong.map(
    ([{ name, blamed }, { cases, conformance }]) =>
      `${name}: ${blamedIn(conformance)} blamed, expected ${blamed.join(' or ')}, at case ${cases - 1}\n${describe(conformance)}`,
  );
  assert.deepEqual([...missed, ...misjudged], []);
});

/** What y alone does not tell, at f32, in random cases; the exact probes tell the first. */
const HIDDEN = [
  '≤ for < at the threshold (“exceed”)',
  'dense mode is a threshold of 1',
  'small probabilities are flushed to 0',
];

test('most faults of a forward pass show in y alone', async t => {
  const isOfForward = (fault: Fault) => !fault.gradients && !fault.blamed.includes('loss') && !isOfBehaviour(fault);
  const meant = faults.filter(fault => isOfForward(fault) && !HIDDEN.includes(fault.name));
  const some = isLong ? meant : meant.filter((_, i) => i % 8 === 0);
  const hidden: string[] = [];
  let [numShowing, numRight] = [0, 0];
  for (const fault of some) {
    const [implementation, right] = [
      fault.make(),
      fault.make().arithmetic.name === 'f64' ? honest.f64 : honest.f32,
    ].map(justY);
    let [shows, isCaught] = [false, false];
    for (let index = 0; index < 500 && !isCaught; index++) {
      const call = callOf(1, index, {}, false);
      if (await isSame(implementation, call, await right.run(call))) continue;
      shows = true;
      const conformance = await examine(implementation, call, { behaviours: [] });
      isCaught = conformance.verdict === 'does not conform';
      if (isCaught && isBlamedRight(fault, conformance)) numRight++;
    }
    if (shows) numShowing++;
    if (shows && !isCaught) hidden.push(fault.name);
  }
  t.diagnostic(
    `${numShowing} of ${some.length} faults change y within 500 cases; ${HIDDEN.length} are known not to be told by it`,
  );
  t.diagnostic(`the right stage is blamed for ${numRight} of them`);
  assert.deepEqual(hidden, []);
  assert.ok(numRight >= 0.6 * numShowing, `${numRight} of ${numShowing}`);
});

/** Cases that every innocent answers, every second with gradients. */
const NUM_CASES = Math.max(15, Math.ceil(RUNS / 10));

for (const { name, make } of [...innocents, ...moderateInnocents]) {
  test(`no fault: ${name}`, async t => {
    const implementation = make();
    let ambiguous = 0;
    for (let index = 0; index < NUM_CASES; index++) {
      const call = callOf(
        SEED,
        index,
        implementation.arithmetic.name === 'f16' ? { logits: ['generic'] } : {},
        index % 2 === 0,
      );
      const conformance = conform(await implementation.run(call), call, implementation.arithmetic);
      ambiguous += conformance.stages.reduce((sum, stage) => sum + stage.numAmbiguous, 0);
      assert.equal(conformance.verdict, 'conforms', `case ${index} of seed ${SEED}\n${describe(conformance)}`);
    }
    t.diagnostic(`seed ${SEED}, ${NUM_CASES} cases, ${ambiguous} decisions that arithmetic cannot tell`);
  });
}

/** Faults whose smallest case is known. E counts a skip expert. The seed is fixed: a greedy search may end a column short. */
const SMALLEST: Readonly<Record<string, { T: number; E: number; d: number; m: number }>> = {
  '≤ for < at the threshold (“exceed”)': { T: 1, E: 2, d: 1, m: 1 },
  'the first expert is not forced': { T: 1, E: 1, d: 1, m: 1 },
  'weights squared': { T: 1, E: 2, d: 1, m: 1 },
  'capacity is ignored': { T: 1, E: 1, d: 1, m: 1 },
  'priority by position': { T: 2, E: 2, d: 1, m: 1 },
  'gate and up swapped': { T: 1, E: 1, d: 1, m: 1 },
  'transposed weights where they are square': { T: 1, E: 1, d: 2, m: 2 },
  'a router that is square is read transposed': { T: 1, E: 2, d: 2, m: 1 },
  'right up to four vectors of 4, the fifth is not read': { T: 1, E: 1, d: 17, m: 1 },
  'right up to four vectors of 4 of m, the fifth is not read': { T: 1, E: 1, d: 1, m: 17 },
  'experts from 256 on are never considered': { T: 1, E: 257, d: 1, m: 1 },
  'above 32 tokens another kernel, with tanh GELU': { T: 33, E: 1, d: 1, m: 1 },
  'tokens from 256 on are not written': { T: 257, E: 1, d: 1, m: 1 },
  'padding counts in T': { T: 2, E: 1, d: 1, m: 1 },
  'hash: the position in place of the id': { T: 1, E: 2, d: 1, m: 1 },
};

test('a shrunk case is as small as the fault allows', async t => {
  for (const [name, smallest] of Object.entries(SMALLEST)) {
    const fault = faults.find(one => one.name === name);
    assert.ok(fault, name);
    const { failure } = await search(fault.make(), { seed: 1, runs: LIMIT, gradients: fault.gradients });
    assert.ok(failure, name);
    const { x, weights, config } = failure.smallest.call;
    const sizes = { T: x.rows, E: weights.up.length + (config.skipExpert ? 1 : 0), d: x.cols, m: weights.up[0].rows };
    t.diagnostic(`${name}: ${JSON.stringify(sizes)}`);
    assert.deepEqual(sizes, smallest, name);
    assert.ok(isBlamedRight(fault, failure.smallest.conformance), name);
  }
});
