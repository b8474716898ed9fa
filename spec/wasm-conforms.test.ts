/** The WebAssembly backend under the oracle, like a stranger's: its stages, and its fused call of which y alone is seen. */
import type { StageName } from 'xmoe/oracle';
import { type WasmOptions, wasmBackend } from 'xmoe/wasm';
import { conformsOnRandomCalls, type Party } from './parties/random-calls.js';
import { fused, staged } from './parties/wasm.js';

const judges: StageName[] = ['logits', 'probs', 'selection', 'dispatch', 'experts', 'combine', 'loss'];

/** Without `deterministic` it is target relaxed where the engine has it. */
async function backendWith(options: WasmOptions) {
  const backend = await wasmBackend(options);
  const isWanted = options.deterministic || backend.info.target === 'relaxed';
  if (isWanted && backend.info.threads === options.threads) return backend;
  backend.dispose();
  return Object.entries(backend.info.notUsed).flat().join(': ');
}

for (const deterministic of [true, false]) {
  for (const threads of [1, 2]) {
    const party =
      (make: typeof fused): Party =>
      async () => {
        const backend = await backendWith({ deterministic, threads });
        return typeof backend === 'string' ? backend : make(backend);
      };
    const name = `target ${deterministic ? 'simd' : 'relaxed'}, threads ${threads}`;
    conformsOnRandomCalls(`${name}, fused`, party(fused), { judges: ['combine'] });
    conformsOnRandomCalls(`${name}, staged`, party(staged), { judges });
  }
}
