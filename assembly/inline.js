/** Writes dist/wasm/bytes.js: the compiled kernels of every target as base64, in a module that any bundler can take. */
import { readFileSync, writeFileSync } from 'node:fs';

const inlined = ['simd', 'relaxed'].map(target => {
  const wasm = readFileSync(new URL(`../dist/wasm/${target}.wasm`, import.meta.url));
  return `  ${target}: '${wasm.toString('base64')}',`;
});

writeFileSync(
  new URL('../dist/wasm/bytes.js', import.meta.url),
  `const inlined = {
${inlined.join('\n')}
};

export function bytes(target) {
  return Uint8Array.from(atob(inlined[target]), c => c.charCodeAt(0));
}
`,
);
