/** What the commands that take a model share: its file, its threshold, and a progress bar. */
import { loadModel, type Model, type RunOptions } from '../model/index.js';
import { type Arguments, parseNumber, readInput } from './arguments.js';
import { backendNames, backendOf } from './backends.js';

export const modelOptions = { threshold: { type: 'string' }, backend: { type: 'string' } } as const;

export const modelHelp = `\
  --threshold τ    route by this threshold instead of the file's; "dense" takes every expert
  --backend NAME   runs the XMoE layers: ${backendNames.join(' | ')} (default ${backendNames[0]})`;

export function readModel(path: string): Model {
  return loadModel(readInput('MODEL', path));
}

export async function runOptionsOf(args: Arguments): Promise<RunOptions> {
  const threshold = args.text('threshold');
  return {
    backend: await backendOf(args.text('backend')),
    ...(threshold !== undefined && {
      threshold: threshold === 'dense' ? threshold : parseNumber('--threshold', threshold, {}),
    }),
  };
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
