/** Random calls to an implementation, as tests. Environment: RUNS (calls), SEED. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { drawRecipe, type WantedRecipes } from 'xmoe/cases';
import { describe, type Implementation, type StageName, search } from 'xmoe/oracle';
import { RUNS } from '../environment.js';

export interface RandomCalls extends WantedRecipes {
  /** A slow implementation gets this share of RUNS (default 1). */
  readonly share?: number;
  /** Default false. */
  readonly gradients?: boolean;
  /** Stages that must have been judged at least once. */
  readonly judges: readonly StageName[];
}

/** An implementation, or why there is none here. */
export type Party = () => Promise<Implementation | string>;

/** A test that random calls conform; where there is no implementation, one that says that it was skipped, and why. */
export function conformsOnRandomCalls(name: string, open: Party, calls: RandomCalls): void {
  test(`random calls conform: ${name}`, async t => {
    const implementation = await open();
    if (typeof implementation === 'string') return t.skip(implementation);
    try {
      await searchAll(t, implementation, calls);
    } finally {
      await implementation.close?.();
    }
  });
}

async function searchAll(t: TestContext, implementation: Implementation, calls: RandomCalls): Promise<void> {
  const { share = 1, judges, gradients = false, ...wanted } = calls;
  const runs = Math.max(50, Math.ceil(RUNS * share));
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  const { tally, failure } = await search(implementation, { seed, runs, wanted, gradients });
  const stages = [...tally.stages].map(([stage, { verdicts }]) => `${stage} ${verdicts.agree + verdicts.admissible}`);
  t.diagnostic(
    `${implementation.name}: seed ${seed}, ${runs} calls, ${tally.numUnjudged} not judged; ${stages.join(', ')}`,
  );
  for (const { first, count } of tally.findings.values()) t.diagnostic(`${count} ${first.kind}: ${first.detail}`);
  if (failure) {
    const recipe = JSON.stringify(drawRecipe(seed, failure.index, wanted));
    assert.fail(`SEED=${seed}, call ${failure.index}: ${recipe}\n${describe(failure.smallest.conformance)}`);
  }
  for (const stage of judges) {
    const { agree, admissible } = tally.stages.get(stage)!.verdicts;
    assert.ok(agree + admissible > 0, `no call was judged at ${stage}`);
  }
}
