/**
 * Compiles the kernels of every target, side by side, unless what was compiled is younger than all that it is made of; and
 * writes what is inlined, in modules that any bundler can take: dist/wasm/bytes.js, the kernels deflated and as base64, and
 * dist/wasm/worker-source.js, the text that worker threads are started from.
 */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { deflateRawSync } from 'node:zlib';

const root = new URL('../', import.meta.url);
const dist = name => new URL(`dist/wasm/${name}`, root);
const targets = Object.keys(JSON.parse(readFileSync(new URL('asconfig.json', root), 'utf8')).targets);
const compiler = createRequire(import.meta.url).resolve('assemblyscript/bin/asc.js');

const sources = readdirSync(new URL('assembly/', root)).map(name => `assembly/${name}`);
const changed = Math.max(
  ...[...sources, 'asconfig.json', 'package-lock.json'].map(name => statSync(new URL(name, root)).mtimeMs),
);

await Promise.all(
  targets.map(async target => {
    const compiled = dist(`${target}.wasm`);
    if (existsSync(compiled) && statSync(compiled).mtimeMs > changed) return;
    const cwd = fileURLToPath(root);
    await promisify(execFile)(process.execPath, [compiler, 'assembly/index.ts', '--target', target], { cwd });
  }),
);

const inlined = targets.map(target => {
  const compiled = readFileSync(dist(`${target}.wasm`));
  const deflated = deflateRawSync(compiled, { level: 9 }).toString('base64');
  return `  ${target}: { numBytes: ${compiled.length}, deflated: '${deflated}' },`;
});
writeFileSync(
  dist('bytes.js'),
  `import { inflate } from './inflate.js';

const inlined = {
${inlined.join('\n')}
};

export function bytes(target) {
  const { numBytes, deflated } = inlined[target];
  return inflate(Uint8Array.from(atob(deflated), c => c.charCodeAt(0)), numBytes);
}
`,
);

const worker = readFileSync(dist('worker.js'), 'utf8');
writeFileSync(dist('worker-source.js'), `export const workerSource = ${JSON.stringify(worker)};\n`);
