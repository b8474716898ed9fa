/** Ours: the layer in one fused call, on each kind of SIMD that the engine has. */
import { wasmBackend } from 'xmoe/wasm';
import type { Contender } from './contender.js';

const relaxed = await wasmBackend({ features: { relaxedSimd: true } }).catch(() => undefined);
relaxed?.dispose();

/** The faster kind is the one that the others are divided by. */
export const wasm: readonly Contender[] = (relaxed ? (['relaxed', 'simd'] as const) : (['simd'] as const)).map(
  (target, i) => ({
    name: `xmoe/wasm ${target}`,
    ours: i === 0,
    task: 'layer',
    router: 'threshold',
    threads: [1, 2],
    async open({ steps, weights, config }, threads) {
      const backend = await wasmBackend({ features: { relaxedSimd: target === 'relaxed' }, threads });
      if (backend.info.threads !== threads) throw new Error(backend.info.notUsed.threads);
      const layer = backend.load(weights, config);
      return { run: step => layer.forward(steps[step].x).data, close: () => backend.dispose() };
    },
  }),
);
