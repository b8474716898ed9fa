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

/** Compiles consumer.ts every way. @returns a line for each. @throws Error with what the compiler said */
export async function checkTypes(app: App): Promise<string[]> {
  const lines: string[] = [];
  for (const compiler of COMPILERS) {
    const manifest = toolFile(`${compiler}/package.json`);
    const { version } = JSON.parse(readFileSync(manifest, 'utf8'));
    const tsc = manifest.replace('package.json', 'bin/tsc');
    for (const resolution of RESOLUTIONS) {
      const folder = join(app.folder, `types-${version}-${resolution.moduleResolution}`);
      mkdirSync(folder);
      cpSync(join(here, 'consumer.ts'), join(folder, 'consumer.ts'));
      // No dom and no types of Node; and declarations of the package are checked too.
      const compilerOptions = {
        ...resolution,
        target: 'es2022',
        lib: ['es2022'],
        types: [],
        strict: true,
        noEmit: true,
      };
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['consumer.ts'] }));
      await printedBy(process.execPath, [tsc, '-p', folder], { cwd: folder });
      lines.push(`TypeScript ${version}, moduleResolution ${resolution.moduleResolution}: types found`);
    }
  }
  return lines;
}
