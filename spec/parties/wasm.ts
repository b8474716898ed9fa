/** The WebAssembly backend as an implementation in two ways: a loaded layer, whose call is fused and says y alone; its stages. */
import { arithmeticNamed, type Implementation, implementationOf } from 'xmoe/oracle';
import type { WasmBackend } from 'xmoe/wasm';

/** A layer is loaded for each call. */
export function fused(backend: WasmBackend): Implementation {
  return {
    name: nameOf(backend, 'fused'),
    arithmetic: arithmeticNamed(backend.info.experts),
    run({ x, weights, config, inputs }) {
      const layer = backend.load(weights, config);
      try {
        return new Map([['y', { shape: [x.rows, x.cols], data: layer.forward(x, inputs).data }]]);
      } finally {
        layer.dispose();
      }
    },
    close: () => backend.dispose(),
  };
}

/** Every stage of a trace. */
export function staged(backend: WasmBackend): Implementation {
  const arithmetic = arithmeticNamed(backend.info.experts);
  return { ...implementationOf(backend), name: nameOf(backend, 'staged'), arithmetic, close: () => backend.dispose() };
}

function nameOf({ name, info }: WasmBackend, way: string): string {
  return `${name}, ${way}, ${info.experts} experts, ${info.threads === 1 ? '1 thread' : `${info.threads} threads`}`;
}
