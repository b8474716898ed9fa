/** An empty folder, the packed package installed into it, and the suite beside it: what a new user has. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { modelFile } from '../everywhere-model.js';
import { printedBy } from './processes.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** One of each kind, all small. */
const RECORDINGS = ['odd-sizes', 'one-expert', 'capacity-ceil', 'gelu-erf', 'topk-2', 'base-eval'];

/** The peer of `xmoe/spec`, and what it needs. */
export const PEERS = ['fast-check', 'pure-rand'];

export interface App {
  readonly folder: string;
  /** The installed package. */
  readonly package: string;
  /** The test file of the README: the specification on somebody's layer. */
  readonly testFile: string;
  /** An entry of the suite. */
  entry(name: 'print' | 'post' | 'fetch'): string;
}

/**
 * Packs, installs and lays out. The folder is the caller's to remove.
 *
 * @param modelAddress where the suite finds its model
 */
export async function layOut(modelAddress: string): Promise<App> {
  const folder = mkdtempSync(join(tmpdir(), 'xmoe-everywhere-'));
  // Built already: not by the script `prepare`, which would build under the feet of others.
  const packages = ['.', ...PEERS.map(name => `./node_modules/${name}`)];
  await printedBy('npm', ['pack', '--ignore-scripts', '--pack-destination', folder, ...packages], { cwd: root });
  const tarballs = readdirSync(folder)
    .filter(name => name.endsWith('.tgz'))
    .map(name => `./${name}`);
  writeFileSync(join(folder, 'package.json'), '{ "name": "app", "private": true, "type": "module" }\n');
  await printedBy('npm', ['install', '--offline', '--no-audit', '--no-fund', ...tarballs], { cwd: folder });

  const suite = join(folder, 'spec/everywhere/app');
  mkdirSync(suite, { recursive: true });
  cpSync(join(root, 'build/spec/everywhere/app'), suite, { recursive: true });
  for (const name of ['tiny-model.js', 'everywhere-model.js']) {
    cpSync(join(root, 'build/spec', name), join(folder, 'spec', name));
  }
  const base64 = (name: string) => readFileSync(join(root, `spec/recordings/${name}.safetensors`), 'base64');
  const recordings = Object.fromEntries(RECORDINGS.map(name => [name, base64(name)]));
  writeFileSync(join(suite, 'recordings.js'), `export const recordings = ${JSON.stringify(recordings)};\n`);
  const modelPath = join(folder, 'model.safetensors');
  writeFileSync(modelPath, modelFile());
  const surroundings = { modelPath, modelAddress, answerCommand: [process.execPath, join(suite, 'answer.js')] };
  const lines = Object.entries(surroundings).map(
    ([name, value]) => `export const ${name} = ${JSON.stringify(value)};\n`,
  );
  writeFileSync(join(suite, 'surroundings.js'), lines.join(''));

  const testFile = join(folder, 'mine.test.mjs');
  const [, test] = /```js\n(\/\/ mine\.test\.mjs\n[^`]*)```/.exec(readFileSync(join(root, 'README.md'), 'utf8'))!;
  writeFileSync(testFile, test);
  return {
    folder,
    testFile,
    package: join(folder, 'node_modules/xmoe'),
    entry: name => join(suite, `${name}.js`),
  };
}

/** The doors of the installed package that are modules: `xmoe/wasm` -> `dist/wasm/index.js`. */
export function doorsOf(app: App): Record<string, string> {
  const { exports } = JSON.parse(readFileSync(join(app.package, 'package.json'), 'utf8'));
  const modules = Object.entries(exports as Record<string, string>).filter(([, file]) => file.endsWith('.js'));
  return Object.fromEntries(modules.map(([door, file]) => [`xmoe${door.slice(1)}`, file.replace('./', '')]));
}
