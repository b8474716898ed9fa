/** What the commands that take a model share: its file, its threshold, and a progress bar. */
import { loadModel, type Model, type RunOptions } from '../model/index.js';
import type { Backend } from '../types.js';
import { type Arguments, parseNumber, readInput } from './arguments.js';
import { backendHelp, backendOptions, withBackend } from './backends.js';

export const modelOptions = { threshold: { type: 'string' }, ...backendOptions } as const;

export const modelHelp = `\
  --threshold τ    route by this threshold instead of the file's; "dense" takes every expert
${backendHelp('runs the XMoE layers')}`;

export function readModel(path: string): Model {
  return loadModel(readInput('MODEL', path));
}

/** Lends `use` what `modelOptions` say. @throws as `withBackend` does, and for a threshold that is none */
export async function withRunOptions<Result>(
  args: Arguments,
  use: (options: RunOptions & { readonly backend: Backend }) => Result | Promise<Result>,
): Promise<Result> {
  const given = args.text('threshold');
  const threshold = given === undefined || given === 'dense' ? given : parseNumber('--threshold', given, {});
  return withBackend(args, backend => use({ backend, ...(threshold !== undefined && { threshold }) }));
}

/** Says which threshold runs: the option's, else the file's. */
export function thresholdName({ config }: Model, { threshold }: RunOptions): string {
  return String(threshold ?? (config.layer.router === 'threshold' ? config.layer.threshold : config.layer.router));
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
