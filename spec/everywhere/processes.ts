/** Other programs: run to their end, within a time. */
import { execFile } from 'node:child_process';
import { accessSync, constants, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The longest that a program may take, in ms. */
export const PATIENCE = 60_000;

/** This folder as it is in the repository, not as it is built. */
export const here = fileURLToPath(new URL('../../../spec/everywhere/', import.meta.url));

export interface RunOptions {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** What a program prints. @throws Error with what it printed where it fails, or does not end by itself */
export function printedBy(file: string, args: readonly string[], { cwd, env }: RunOptions): Promise<string> {
  const options = { cwd, env: { ...process.env, ...env }, timeout: PATIENCE, maxBuffer: 2 ** 26 };
  return new Promise((resolve, reject) => {
    execFile(file, args, { ...options, killSignal: 'SIGKILL' }, (error, stdout, stderr) => {
      if (!error) return resolve(stdout);
      const end = error.killed ? `did not end within ${PATIENCE} ms` : `ended with code ${error.code}`;
      reject(new Error(`${file} ${args.join(' ')} ${end}\n${stdout}${stderr}`));
    });
  });
}

/** The first of these programs that there is: a path, or a name to be found on PATH. */
export function program(...names: readonly (string | undefined)[]): string | undefined {
  const folders = (process.env.PATH ?? '').split(delimiter);
  return names
    .filter(name => name !== undefined)
    .flatMap(name => (name.includes('/') ? [name] : folders.map(folder => join(folder, name))))
    .find(isExecutable);
}

/** A program of a package for this platform: `runtimes/node_modules/@scope/prefix…/path`, whatever the platform is called. */
export function platformProgram(scope: string, prefix: string, path: string): string | undefined {
  const folder = join(here, 'runtimes/node_modules', scope);
  try {
    const names = readdirSync(folder).filter(name => name.startsWith(prefix));
    return program(...names.map(name => join(folder, name, path)));
  } catch {
    return undefined;
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
