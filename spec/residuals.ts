/** What a runtime on one thread computes on its way: x, the residual stream, as each LayerNorm sees it. */
import type { Matrix } from 'xmoe';

type Kernel = (...args: number[]) => void;

/**
 * Watches the kernels that are instantiated until `end`.
 *
 * @returns with x of each call of `add_norm_f32`, in order
 */
export function watchResiduals(): { readonly seen: Matrix[]; end(): void } {
  const { Instance } = WebAssembly;
  const seen: Matrix[] = [];
  WebAssembly.Instance = class {
    readonly exports: Readonly<Record<string, Kernel>>;

    constructor(module: object, imports: Imports) {
      const { exports } = new Instance(module, imports);
      const watched: Kernel = (...args) => {
        exports.add_norm_f32(...args);
        const [ptr, stride, , , , , , rows, cols] = args;
        const x = new Float32Array(imports.env.memory.buffer, ptr, rows * stride); // its rows are side by side
        seen.push({ rows, cols, data: x.slice(0, rows * cols) });
      };
      this.exports = { ...exports, add_norm_f32: watched };
    }
  };
  return {
    seen,
    end() {
      WebAssembly.Instance = Instance;
    },
  };
}

/** The little of WebAssembly's interface that is used here: TypeScript has it only in its library for browsers. */
interface Imports {
  readonly env: { readonly memory: { readonly buffer: ArrayBuffer } };
}

declare const WebAssembly: {
  Instance: new (module: object, imports: Imports) => { readonly exports: Readonly<Record<string, Kernel>> };
};
