/** Ours: the layer in one fused call, router inside, with each choice of kernels that this engine may have. */
import { type WasmBackend, type WasmOptions, wasmBackend } from 'xmoe/wasm';
import { type Contender, Unavailable } from './contender.js';

interface Variant {
  readonly name: string;
  readonly options: WasmOptions;
}

const relaxedSimd = 'enable'; // Node 20 has it behind a flag

const variants: readonly Variant[] = [
  { name: 'relaxed', options: { features: { relaxedSimd } } },
  { name: 'simd', options: { deterministic: true } },
  { name: 'relaxed revectorized', options: { features: { relaxedSimd, revectorize: true } } },
  { name: 'simd revectorized', options: { deterministic: true, features: { revectorize: true } } },
];

/** The others are divided by the first: what a user gets without an option, but for Node 20, where relaxed SIMD is one. */
export const wasm: readonly Contender[] = variants.map(({ name, options }, i) => ({
  name: `xmoe/wasm ${name}`,
  ours: i === 0,
  router: 'threshold',
  threads: [1, 2],
  async open({ steps, weights, config }, threads) {
    const backend = await open({ ...options, threads });
    const layer = backend.load(weights, config);
    return { run: step => layer.forward(steps[step].x).data, close: () => backend.dispose() };
  },
}));

/**
 * The backend with all that was asked for. V8's flag for vectors of 256 bits is taken back before this is done: who compiles
 * later is not reached by it.
 *
 * @throws Unavailable with the backend's own reason
 */
async function open(options: WasmOptions): Promise<WasmBackend> {
  const backend = await wasmBackend(options).catch((cause: Error) => {
    throw new Unavailable(cause.message, { cause });
  });
  const { threads, revectorized, notUsed } = backend.info;
  if (threads === options.threads && revectorized === (options.features?.revectorize ?? false)) return backend;
  backend.dispose();
  throw new Unavailable(threads === options.threads ? notUsed.revectorize : notUsed.threads);
}
