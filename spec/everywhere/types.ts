/** TypeScript users: every way to resolve modules finds the types, which ask for no library but that of the language. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { toolFile } from './bundles.js';
import type { App } from './lay-out.js';
import { here, printedBy } from './processes.js';

/** Two generations of the compiler, as they are installed beside the bundlers. */
const COMPILERS = ['typescript-5', 'typescript-7'];

const RESOLUTIONS = [
  { module: 'node16', moduleResolution: 'node16' },
  { module: 'nodenext', moduleResolution: 'nodenext' },
  { module: 'esnext', moduleResolution: 'bundler' },
];

/** With no library but that of the language, nor Node's types; and with a browser's. */
const CONSUMERS = [
  { file: 'consumer-any.ts', lib: ['es2022'] },
  { file: 'consumer-page.ts', lib: ['es2022', 'dom'] },
];

/** Compiles the consumers every way. @returns a line for each way. @throws Error with what the compiler said */
export async function checkTypes(app: App): Promise<string[]> {
  const lines: string[] = [];
  for (const name of COMPILERS) {
    const manifest = toolFile(`${name}/package.json`);
    const { version } = JSON.parse(readFileSync(manifest, 'utf8'));
    for (const resolution of RESOLUTIONS) {
      const way = `TypeScript ${version}, moduleResolution ${resolution.moduleResolution}`;
      for (const { file, lib } of CONSUMERS) {
        const folder = join(app.folder, 'types', way, file);
        mkdirSync(folder, { recursive: true });
        cpSync(join(here, file), join(folder, file));
        // The declarations of the package are checked too.
        const compilerOptions = { ...resolution, target: 'es2022', lib, types: [], strict: true, noEmit: true };
        writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: [file] }));
        const tsc = manifest.replace('package.json', 'bin/tsc');
        await printedBy(process.execPath, [tsc, '-p', folder], { cwd: folder });
      }
      lines.push(`${way}: types found`);
    }
  }
  return lines;
}
