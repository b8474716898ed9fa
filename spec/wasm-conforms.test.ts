/** The WebAssembly backend under the oracle, like a stranger's: its stages, and its fused call of which y alone is seen. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { arithmeticNamed, type StageName, search } from 'xmoe/oracle';
import { type WasmOptions, wasmBackend } from 'xmoe/wasm';
import { conformsOnRandomCalls, type Party } from './parties/random-calls.js';
import { fused, staged } from './parties/wasm.js';

const judges: StageName[] = ['logits', 'probs', 'selection', 'dispatch', 'experts', 'combine', 'loss'];

async function backendWith(options: WasmOptions) {
  try {
    const backend = await wasmBackend(options);
    if (backend.info.threads === options.threads) return backend;
    backend.dispose();
    return backend.info.notUsed.threads!;
  } catch (error) {
    return (error as Error).message; // no relaxed SIMD
  }
}

const targets: Readonly<Record<string, WasmOptions>> = {
  simd: { deterministic: true },
  relaxed: { features: { relaxedSimd: 'enable' } },
};

for (const [target, options] of Object.entries(targets)) {
  for (const experts of ['f32', 'f16', 'bf16', 'int8'] as const) {
    for (const threads of [1, 2]) {
      const party =
        (make: typeof fused): Party =>
        async () => {
          const backend = await backendWith({ ...options, experts, threads });
          return typeof backend === 'string' ? backend : make(backend);
        };
      const name = `target ${target}, ${experts} experts, threads ${threads}`;
      conformsOnRandomCalls(`${name}, fused`, party(fused), { share: 0.25, judges: ['combine'] });
      conformsOnRandomCalls(`${name}, staged`, party(staged), { share: 0.25, judges });
    }
  }
}

for (const experts of ['f16', 'bf16', 'int8'] as const) {
  test(`${experts} experts do not pass as float32's: they are blamed`, async () => {
    const backend = await wasmBackend({ deterministic: true, experts });
    const { failure } = await search({ ...staged(backend), arithmetic: arithmeticNamed('f32') }, { runs: 20 });
    assert.equal(failure?.smallest.conformance.blamed, 'experts');
    backend.dispose();
  });
}
