/** The WebAssembly backend as an implementation in two ways: a loaded layer, whose call is fused and says y alone; its stages. */
import { arithmeticNamed, type Implementation, implementationOf } from 'xmoe/oracle';
import type { WasmBackend } from 'xmoe/wasm';

/** A layer is loaded for each call. */
export function fused(backend: WasmBackend): Implementation {
  return {
    name: `${backend.name}, fused, threads ${backend.info.threads}`,
    arithmetic: arithmeticNamed('f32'),
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
  return { ...implementationOf(backend), name: `${backend.name}, staged, threads ${backend.info.threads}` };
}
