/**
 * Writes what is inlined, in modules that any bundler can take: dist/wasm/bytes.js, the compiled kernels of every target as
 * base64, and dist/wasm/worker-source.js, the text that worker threads are started from.
 */
import { readFileSync, writeFileSync } from 'node:fs';

const dist = name => new URL(`../dist/wasm/${name}`, import.meta.url);

const inlined = ['simd', 'relaxed'].map(target => {
  const wasm = readFileSync(dist(`${target}.wasm`));
  return `  ${target}: '${wasm.toString('base64')}',`;
});

writeFileSync(
  dist('bytes.js'),
  `const inlined = {
${inlined.join('\n')}
};

export function bytes(target) {
  return Uint8Array.from(atob(inlined[target]), c => c.charCodeAt(0));
}
`,
);

const worker = readFileSync(dist('worker.js'), 'utf8');
writeFileSync(dist('worker-source.js'), `export const workerSource = ${JSON.stringify(worker)};\n`);
