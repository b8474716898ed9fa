/** The package's own float32 backends under the oracle: never accused. Long runs: bench/false-alarms.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Backend, reference, referenceF32 } from 'xmoe';
import { callOf, conform, describe, implementationOf, Tally } from 'xmoe/oracle';
import { wasmBackend } from 'xmoe/wasm';
import { RUNS } from './environment.js';
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
    const tally = new Tally();
    for (let index = 0; index < RUNS; index++) {
      const call = callOf(SEED, index, {}, index % 4 === 0);
      const outputs = await implementation.run(call);
      const some = partOfOutputs(outputs, index);
      const conformance = conform(outputs, call, implementation.arithmetic);
      const ofPart = some.size > 0 ? conform(some, call, implementation.arithmetic) : conformance;
      for (const judged of [conformance, ofPart]) {
        assert.equal(judged.verdict, 'conforms', `case ${index} of seed ${SEED}\n${describe(judged)}`);
      }
      tally.add(conformance);
    }
    const judged = [...tally.stages].map(([stage, { verdicts }]) => `${stage} ${verdicts.agree + verdicts.admissible}`);
    t.diagnostic(`seed ${SEED}, ${RUNS} cases; stages judged: ${judged.join(', ')}`);
    for (const stage of ['logits', 'probs', 'selection', 'dispatch', 'experts', 'combine', 'loss'] as const) {
      assert.ok((tally.stages.get(stage)?.verdicts.agree ?? 0) > RUNS / 2, stage);
    }
  });
}
