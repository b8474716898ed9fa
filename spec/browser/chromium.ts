/** A headless Chromium of the machine's. */
import { spawn } from 'node:child_process';
import { accessSync, constants, mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];

/** Its path: that of the environment variable CHROMIUM, or found on the PATH. */
export function findChromium(): string | undefined {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const folders = (process.env.PATH ?? '').split(delimiter);
  return folders.flatMap(folder => NAMES.map(name => join(folder, name))).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export interface Browser {
  /** Settles when it has ended by itself, with what it wrote on stderr. */
  readonly ended: Promise<string>;
  close(): Promise<void>;
}

/** Opens a page, with a profile of its own. */
export function openChromium(path: string, url: string): Browser {
  const profile = mkdtempSync(join(tmpdir(), 'xmoe-chromium-'));
  const child = spawn(
    path,
    [
      '--headless',
      ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), // which root must do without
      '--disable-gpu',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--disable-quic',
      `--user-data-dir=${profile}`,
      url,
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let written = '';
  child.stderr.on('data', chunk => {
    written = (written + chunk).slice(-1000);
  });
  const ended = new Promise<string>(resolve => {
    child.on('error', error => resolve(String(error)));
    child.on('exit', () => resolve(written));
  });
  return {
    ended,
    async close() {
      child.kill();
      await ended;
      // Its helper processes end a little later.
      await rm(profile, { recursive: true, force: true, maxRetries: 20 }).catch(() => {});
    },
  };
}
