/** What somebody computed for a folder of layer cases, judged. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { readLayerCase, readOutputs } from '../layer-case/index.js';
import { type Arithmetic, examine, type Implementation, ImplementationError, Tally } from '../oracle/index.js';
import { quote } from '../safetensors/json.js';
import { readInput } from './arguments.js';
import type { CheckReport } from './check-report.js';

const CASE = '.safetensors';
const ANSWER = '.out.safetensors';

/** Judges NAME.out.safetensors for each NAME.safetensors of the folder; the first that is wrong is shown in full. */
export async function judgeFolder(folder: string, arithmetic: Arithmetic): Promise<CheckReport> {
  const started = performance.now();
  const tally = new Tally();
  let shown: CheckReport['shown'];
  for (const name of casesIn(folder)) {
    const call = readLayerCase(readInput('--files', join(folder, name + CASE)));
    const conformance = await examine(answerIn(join(folder, name + ANSWER), arithmetic), call, { behaviours: [] });
    tally.add(conformance);
    if (conformance.verdict !== 'conforms') shown ??= { name, call, conformance };
  }
  const seconds = (performance.now() - started) / 1000;
  const report = { name: folder, arithmetic, what: 'files', seconds, tally, interrupted: false };
  return shown ? { ...report, shown } : report;
}

function casesIn(folder: string): string[] {
  let files: string[];
  try {
    files = readdirSync(folder);
  } catch (error) {
    throw new TypeError(`"--files" expected a readable folder, got ${(error as Error).message}`);
  }
  const names = files.filter(file => file.endsWith(CASE) && !file.endsWith(ANSWER)).sort();
  if (names.length === 0) throw new TypeError(`"--files" expected a folder with layer cases, got none in ${folder}`);
  return names.map(file => file.slice(0, -CASE.length));
}

/** An implementation that gives what the file holds, whatever it is asked. */
function answerIn(path: string, arithmetic: Arithmetic): Implementation {
  return {
    name: path,
    arithmetic,
    run() {
      if (!existsSync(path)) throw new ImplementationError('refused', `no ${ANSWER.slice(1)} for it`);
      try {
        const { outputs, metadata } = readOutputs(readInput('--files', path));
        const refused = metadata.get('refused');
        if (refused === undefined) return outputs;
        throw new ImplementationError('refused', quote(refused));
      } catch (error) {
        if (error instanceof ImplementationError) throw error;
        throw new ImplementationError('wrote rubbish', `${path} is no file of outputs: ${(error as Error).message}`);
      }
    },
  };
}
