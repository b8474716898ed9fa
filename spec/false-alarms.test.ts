/** The package's own float32 backends under the oracle, in order and in reverse: never accused. Long runs: bench/false-alarms.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Backend, reference, referenceF32 } from 'xmoe';
import { drawRecipe, layerOf } from 'xmoe/cases';
import { callOf, conform, describe, implementationOf, type Outputs, Tally } from 'xmoe/oracle';
import { wasmBackend } from 'xmoe/wasm';
import { RUNS } from './environment.js';
import { inReverse } from './in-reverse.js';
import { partOfOutputs } from './part-of-outputs.js';

const SEED = Number(process.env.SEED ?? Date.now() % 2 ** 31);

const relaxed = await wasmBackend({ features: { relaxedSimd: 'enable' } }).catch((error: Error) => error);
const backends: readonly (readonly [string, Backend | Error])[] = [
  ['the reference rounded to float32', { ...reference, ...referenceF32 }],
  ['wasm', await wasmBackend({ deterministic: true })],
  ['wasm-relaxed', relaxed],
];

for (const [name, backend] of backends) {
  const options = backend instanceof Error ? { skip: backend.message } : {};
  test(`no false alarm: ${name}`, options, async t => {
    const implementation = implementationOf(backend as Backend);
    const runInReverse = inReverse(implementation);
    const tally = new Tally();
    for (let index = 0; index < RUNS; index++) {
      const gradients = index % 4 === 0;
      const call = callOf(SEED, index, {}, gradients);
      const conforming = (outputs: Outputs, what: string) => {
        const conformance = conform(outputs, call, implementation.arithmetic);
        const message = `case ${index} of seed ${SEED}, ${what}\n${describe(conformance)}`;
        assert.equal(conformance.verdict, 'conforms', message);
        return conformance;
      };
      const outputs = await implementation.run(call);
      tally.add(conforming(outputs, 'in order'));
      const reversed = await runInReverse(layerOf(drawRecipe(SEED, index)), gradients);
      conforming(reversed, 'in reverse');
      for (const [all, what] of [
        [outputs, 'in order'],
        [reversed, 'in reverse'],
      ] as const) {
        const some = partOfOutputs(all, index);
        if (some.size > 0) conforming(some, `${what}: ${[...some.keys()].join(', ')}`);
      }
    }
    const judged = [...tally.stages].map(([stage, { verdicts }]) => `${stage} ${verdicts.agree + verdicts.admissible}`);
    t.diagnostic(`seed ${SEED}, ${RUNS} cases; stages judged: ${judged.join(', ')}`);
    for (const stage of ['logits', 'probs', 'selection', 'dispatch', 'experts', 'combine', 'loss'] as const) {
      assert.ok((tally.stages.get(stage)?.verdicts.agree ?? 0) > RUNS / 2, stage);
    }
  });
}
