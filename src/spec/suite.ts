/** The whole specification, run on somebody's layer by the test runner that they have. */
import fc from 'fast-check';
import { layerOf, type Recipe } from '../cases/index.js';
import {
  type Conformance,
  describe,
  examine,
  type Finding,
  type Implementation,
  type LayerCall,
  probe,
  type StageName,
} from '../oracle/index.js';
import { recipes } from './generators.js';
import { type Property, propertiesOf } from './properties.js';

/** `test` of node:test, vitest or jest. */
export interface Test {
  (name: string, body: () => Promise<void>, timeout?: number): unknown;
  skip?: (name: string, body: () => Promise<void>) => unknown;
}

export interface SuiteOptions {
  readonly test: Test;
  /** Whether it has gradients, and rules G1-G7 are tested. Default false. */
  readonly gradients?: boolean;
  /** Cases of each property. Default: XMOE_RUNS in the environment, or 100. */
  readonly runs?: number;
  /** Default: XMOE_SEED, or another one each time; a failure prints it. */
  readonly seed?: number;
  /** Only the properties whose names begin so, a rule's id, say. Default: XMOE_ONLY, or all. */
  readonly only?: string;
  /** The one case to repeat, as a failure printed it. Default: XMOE_PATH. */
  readonly path?: string;
  /** Milliseconds that a test may take. Default 120 000. */
  readonly timeout?: number;
}

/**
 * Define one test for each rule: `describeXmoe(implementation, { test })`.
 *
 * Each draws random layers that its rule is about, puts them to the implementation, and fails where the oracle says that
 * a stage of that rule is wrong; the case is shrunk, and the message says how to repeat it. Rules whose layers are all
 * refused are skipped.
 */
export function describeXmoe(implementation: Implementation, options: SuiteOptions): void {
  const settings: Settings = {
    runs: options.runs ?? Number(fromEnvironment('XMOE_RUNS') ?? 100),
    seed: options.seed ?? Number(fromEnvironment('XMOE_SEED') ?? Date.now() | 0),
    path: options.path ?? fromEnvironment('XMOE_PATH'),
  };
  const only = options.only ?? fromEnvironment('XMOE_ONLY') ?? '';
  const { test, timeout = 120_000, gradients = false } = options;
  const define = (name: string, refused: string | undefined, body: () => Promise<void>) => {
    if (!name.startsWith(only)) return;
    if (refused === undefined) test(name, body, timeout);
    else test.skip?.(`${name} (refused: ${refused})`, body);
  };
  define(PROBES, undefined, () => checkProbes(implementation));
  for (const property of propertiesOf(gradients)) {
    const body = () => check(implementation, property, settings);
    define(property.name, refusalOf(implementation, property, settings.seed), body);
  }
}

interface Settings {
  readonly runs: number;
  readonly seed: number;
  readonly path: string | undefined;
}

const PROBES = 'D4 the rule is XMoE’s and not that of a relative';

async function checkProbes(implementation: Implementation): Promise<void> {
  const { rule, results } = await probe(implementation);
  const seen = results.filter(({ got }) => typeof got !== 'string');
  if (seen.length === 0 || rule === 'XMoE') return;
  const lines = seen.map(({ probe: { name }, expected, got }) => {
    return `  ${name}: XMoE takes ${expected}, it took ${typeof got === 'string' ? got : got.experts.length}`;
  });
  throw new Error([`it follows ${rule ?? 'no rule that is known'}`, ...lines].join('\n'));
}

/** Why all of some layers are refused; undefined where one is not. */
function refusalOf(implementation: Implementation, property: Property, seed: number): string | undefined {
  let reason: string | undefined;
  for (const recipe of fc.sample(recipes(property.layers), { seed, numRuns: 20 })) {
    reason = implementation.refuses?.(callOf(recipe, property));
    if (reason === undefined) return undefined;
  }
  return reason;
}

function callOf(recipe: Recipe, { stages }: Property): LayerCall {
  const { gradY, ...call } = layerOf({ ...recipe, storage: 'f32' });
  return stages === 'gradients' ? { ...call, gradY } : call;
}

async function check(implementation: Implementation, property: Property, settings: Settings): Promise<void> {
  const { name, layers, behaviours = [], share = 1 } = property;
  const result = await fc.check(
    fc.asyncProperty(recipes(layers), async recipe => {
      const conformance = await examine(implementation, callOf(recipe, property), { behaviours });
      if (isAgainst(conformance, property)) throw new Error(describe(conformance));
    }),
    {
      seed: settings.seed,
      numRuns: Math.max(1, Math.ceil(settings.runs * share)),
      ...(settings.path !== undefined && { path: settings.path, endOnFailure: true }),
    },
  );
  if (!result.failed) return;
  const [recipe] = result.counterexample ?? [];
  const cause = result.errorInstance instanceof Error ? result.errorInstance.message : String(result.errorInstance);
  const words = [
    `XMOE_ONLY='${name}' XMOE_SEED=${result.seed} XMOE_PATH=${result.counterexamplePath}`,
    `{ only: '${name}', seed: ${result.seed}, path: '${result.counterexamplePath}' }`,
  ];
  throw new Error(
    `${name}\n\n${cause}\n\nafter ${result.numRuns} cases and ${result.numShrinks} smaller ones, layerOf(${JSON.stringify(recipe)})\n` +
      `Repeat with ${words[0]} in the environment, or options ${words[1]}`,
  );
}

/** A stage of the property is wrong; or, where none of them could be judged, another one is. Findings have no stage, or one. */
function isAgainst({ stages, findings }: Conformance, property: Property): boolean {
  const faults = findings.filter(({ severity }) => severity === 'fault');
  if (property.stages === 'behaviour') return faults.some(({ kind }) => !OF_ANSWER.includes(kind));
  const isMeant = (stage: StageName | undefined) => stage === undefined || isOf(property, stage);
  const isJudged = stages.some(({ stage, verdict }) => isMeant(stage) && verdict !== 'not judged');
  return (
    stages.some(({ stage, verdict }) => verdict === 'disagree' && (isMeant(stage) || !isJudged)) ||
    faults.some(({ stage }) => isMeant(stage))
  );
}

/** What an answer has wrong with it, and not the way that it came about. */
const OF_ANSWER: readonly Finding['kind'][] = ['non-finite', 'wrong shape', 'duplicate expert', 'out of range'];

function isOf({ stages }: Property, stage: StageName): boolean {
  if (stages === 'all') return true;
  if (stages === 'gradients') return stage === 'loss' || stage.startsWith('grad.');
  return stages.includes(stage);
}

/** In browsers there is none, and Deno may forbid it. */
function fromEnvironment(name: string): string | undefined {
  try {
    const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
    return process?.env?.[name];
  } catch {
    return undefined;
  }
}
