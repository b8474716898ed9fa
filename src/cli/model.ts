/** What the commands that take a model share: the model on a backend, its threshold, and a progress bar. */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import {
  type EvaluateOptions,
  type Evaluation,
  evaluate,
  type GenerateOptions,
  generate,
  loadModel,
  type ModelConfig,
  SourceError,
} from '../model/index.js';
import { openRuntime, type Runtime } from '../runtime/index.js';
import { type Arguments, parseNumber, readInput } from './arguments.js';
import { engineOf, engineOptions, isOnWasm, modelBackendHelp, withBackend } from './backends.js';

export const modelOptions = {
  threshold: { type: 'string' },
  ...engineOptions,
  weights: { type: 'string' },
} as const;

export const modelHelp = `\
  --threshold τ    route by this threshold instead of the file's; "dense" takes every expert
${modelBackendHelp}`;

/** A model, by whatever runs it. */
export interface CliModel {
  readonly config: ModelConfig;
  /** The backend's name. */
  readonly backend: string;
  evaluate(text: Uint8Array, options: Omit<EvaluateOptions, 'backend'>): Promise<Evaluation>;
  generate(prompt: Uint8Array, options: Omit<GenerateOptions, 'backend'>): AsyncIterable<{ readonly byte: number }>;
}

/**
 * Lends `use` the model that the arguments choose: on WebAssembly all of it, else with a backend for its XMoE layers.
 *
 * @throws TypeError | RangeError for what is no model, no backend, and for an option that would have no effect; Error, with
 *         the reason, where the engine cannot run it
 */
export async function withModel<Result>(
  path: string,
  args: Arguments,
  use: (model: CliModel) => Promise<Result>,
): Promise<Result> {
  if (isOnWasm(args)) {
    const runtime = await engineOf(args, 'weights', (options, weights) => readRuntime(path, { ...options, weights }));
    try {
      return await use(onRuntime(runtime, args.text('backend')!));
    } finally {
      runtime.dispose();
    }
  }
  return withBackend(args, async backend => {
    const model = loadModel(readInput('MODEL', path));
    return use({
      config: model.config,
      backend: backend.name,
      evaluate: async (text, options) => evaluate(model, text, { ...options, backend }),
      async *generate(prompt, options) {
        yield* generate(model, prompt, { ...options, backend });
      },
    });
  });
}

function onRuntime(runtime: Runtime, backend: string): CliModel {
  return {
    config: runtime.config,
    backend,
    evaluate: (text, options) => runtime.evaluate(text, options),
    generate: (prompt, options) => runtime.generate(prompt, options),
  };
}

async function readRuntime(path: string, options: Parameters<typeof openRuntime>[1]): Promise<Runtime> {
  try {
    return await openRuntime(pathToFileURL(resolve(path)), options);
  } catch (error) {
    if (!(error instanceof SourceError)) throw error;
    throw new TypeError(`"MODEL" expected a readable file, got ${(error.cause as Error).message}`);
  }
}

/** What `--threshold` says. @throws RangeError for what is none */
export function thresholdOf(args: Arguments): { readonly threshold?: number | 'dense' } {
  const given = args.text('threshold');
  if (given === undefined) return {};
  return { threshold: given === 'dense' ? given : parseNumber('--threshold', given, {}) };
}

/** Says which threshold runs: the option's, else the file's. */
export function thresholdName({ layer }: ModelConfig, threshold: number | 'dense' | undefined): string {
  return String(threshold ?? (layer.router === 'threshold' ? layer.threshold : layer.router));
}

/** A bar on stderr where that is a terminal; nothing elsewhere. Call with the share done; at 1 it wipes itself. */
export function progressBar(label: string): (share: number) => void {
  const { stderr } = process;
  if (!stderr.isTTY) return () => {};
  return share => {
    const done = Math.round(30 * share);
    const bar = `${label} ${'█'.repeat(done)}${'░'.repeat(30 - done)} ${Math.round(100 * share)} %`;
    stderr.write(share < 1 ? `\r${bar}` : '\r\x1b[K');
  };
}
