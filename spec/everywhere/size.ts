/** How large the package is, and how large it may become. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { esbuild } from './bundles.js';
import type { App } from './lay-out.js';

/** Bytes. Where one is exceeded for a good reason, it is raised in the commit that needs it. */
const BUDGETS = {
  unpacked: 1_010_000,
  xmoe: { minified: 23_000, gzip: 9_000 },
  'xmoe/wasm': { minified: 95_000, gzip: 54_000 },
  'xmoe/runtime': { minified: 133_000, gzip: 68_000 },
};

export interface Size {
  readonly what: string;
  readonly bytes: number;
  readonly budget: number;
}

export async function sizesOf(app: App): Promise<Size[]> {
  const unpacked = {
    what: 'the package, unpacked, without a model',
    bytes: bytesIn(app.package),
    budget: BUDGETS.unpacked,
  };
  const doors = await Promise.all((['xmoe', 'xmoe/wasm', 'xmoe/runtime'] as const).map(door => sizesOfDoor(app, door)));
  return [unpacked, ...doors.flat()];
}

/** All that a door exports, in one minified file. */
async function sizesOfDoor(app: App, door: 'xmoe' | 'xmoe/wasm' | 'xmoe/runtime'): Promise<Size[]> {
  const name = door.replace('/', '-');
  const entry = join(app.folder, `${name}-door.js`);
  writeFileSync(entry, `export * from '${door}';\n`);
  const outfile = join(app.folder, `${name}-door.min.js`);
  await esbuild(entry, outfile, { minify: true });
  const bytes = readFileSync(outfile);
  return [
    { what: `\`${door}\`, minified`, bytes: bytes.length, budget: BUDGETS[door].minified },
    { what: `\`${door}\`, minified, gzip`, bytes: gzipSync(bytes, { level: 9 }).length, budget: BUDGETS[door].gzip },
  ];
}

function bytesIn(folder: string): number {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map(name => statSync(join(folder, name)))
    .reduce((sum, stat) => sum + (stat.isFile() ? stat.size : 0), 0);
}

export function sizeTable(sizes: readonly Size[]): string {
  const number = (bytes: number) => bytes.toLocaleString('en');
  const rows = sizes.map(({ what, bytes, budget }) => `| ${what} | ${number(bytes)} | ${number(budget)} |`);
  return ['| size | bytes | at most |', '| --- | --: | --: |', ...rows].join('\n');
}
