/** Other programs: run to their end, within a time. */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The longest that a program may take, in ms. */
export const PATIENCE = 120_000;

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

/** A program of an installed package whose name begins so: the platform is in the rest of it. Undefined if there is none. */
export function runtime(scope: string, prefix: string, path: string): string | undefined {
  const folder = join(here, 'runtimes/node_modules', scope);
  if (!existsSync(folder)) return undefined;
  const names = readdirSync(folder).filter(name => name.startsWith(prefix));
  return names.map(name => join(folder, name, path)).find(existsSync);
}
