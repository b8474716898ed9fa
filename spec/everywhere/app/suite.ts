/** One suite for every place that runs JavaScript. Its checks are the doors of the package, used as a stranger would. */
import type { Backends } from './backends.js';
import { Absent, type Check, type Outcome } from './check.js';
import { fileChecks } from './file-checks.js';
import { layerChecks } from './layer-checks.js';
import { modelChecks } from './model-checks.js';
import { runtimeChecks } from './runtime-checks.js';
import { strangerChecks } from './stranger-checks.js';
import { wasmChecks } from './wasm-checks.js';

const checks: readonly Check[] = [
  ...layerChecks,
  ...fileChecks,
  ...strangerChecks,
  ...modelChecks,
  ...wasmChecks,
  ...runtimeChecks,
];

export async function runSuite(backends: Backends): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const check of checks) outcomes.push(await outcomeOf(check, backends));
  return outcomes;
}

async function outcomeOf({ feature, name, run }: Check, backends: Backends): Promise<Outcome> {
  try {
    const result = await run(backends);
    return { feature, name, verdict: 'passed', detail: '', bits: typeof result === 'string' ? result : '' };
  } catch (error) {
    if (error instanceof Absent) return { feature, name, verdict: 'absent', detail: error.message, bits: '' };
    const detail = error instanceof Error ? (error.stack ?? String(error)) : String(error);
    return { feature, name, verdict: 'failed', detail, bits: '' };
  }
}
