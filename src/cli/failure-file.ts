/** A failing call as a file, and the line that puts it again. */

import { basename, join, relative } from 'node:path';
import { type Failure, faultOf } from '../oracle/index.js';
import { writeOutput } from './arguments.js';
import { caseFile } from './case-file.js';

/** Saves the smallest call, with the reference's outputs; the path. */
export function saveFailure(folder: string, seed: number, { index, smallest }: Failure): string {
  const fault = (faultOf(smallest.conformance) ?? 'fault').replace(/\W+/g, '-');
  const name = `xmoe-failure-${fault}-seed${seed}-case${index}`;
  const path = join(folder, `${name}.safetensors`);
  writeOutput('--save', path, caseFile(name, smallest.call));
  return path;
}

/** The line of a shell that puts the file to the implementation that was named. */
export function replayLine(argv: readonly string[], file: string): string {
  const dropped = ['--runs', '--seed', '--router', '--activation', '--without', '--shard', '--save', '--json'];
  const end = argv.indexOf('--');
  const own = end < 0 ? argv : argv.slice(0, end);
  const kept = own.filter((arg, i) => {
    const option = dropped.find(name => arg === name || arg.startsWith(`${name}=`));
    return option === undefined && !dropped.includes(own[i - 1]);
  });
  return [...ourselves(), 'check', ...kept, '--replay', file, ...(end < 0 ? [] : argv.slice(end))]
    .map(quoted)
    .join(' ');
}

/** As the user called us, as far as that can be known. */
function ourselves(): string[] {
  const script = process.argv[1] ?? '';
  if (/node_modules[/\\]\.bin[/\\]/.test(script) || process.env.npm_command === 'exec') return ['npx', 'xmoe'];
  return basename(script) === 'xmoe' ? ['xmoe'] : ['node', relative('', script) || script];
}

/** For a POSIX shell. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
