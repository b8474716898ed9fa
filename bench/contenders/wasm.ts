/** Ours: the layer in one fused call, router inside, with each choice of kernels that this engine may have. */
import { type WasmBackend, type WasmOptions, wasmBackend } from 'xmoe/wasm';
import type { Precision } from '../precision.js';
import { type Contender, Unavailable } from './contender.js';

interface Variant {
  readonly name: string;
  readonly deterministic?: boolean;
  readonly experts?: Precision;
}

/** The others are divided by the first: what a user gets without an option, but for Node 20, where relaxed SIMD is one. */
const variants: readonly Variant[] = [
  { name: 'relaxed' },
  { name: 'simd', deterministic: true },
  { name: 'bf16', experts: 'bf16' },
  { name: 'int8', experts: 'int8' },
  { name: 'simd int8', deterministic: true, experts: 'int8' },
];

export const wasm: readonly Contender[] = [false, true].flatMap(revectorize =>
  variants.map(({ name, deterministic = false, experts: precision = 'f32' }): Contender => {
    const relaxedSimd = deterministic ? false : 'enable'; // Node 20 has it behind a flag
    const options: WasmOptions = { deterministic, experts: precision, features: { relaxedSimd, revectorize } };
    return {
      name: `xmoe/wasm ${name}${revectorize ? ' revectorized' : ''}`,
      ours: name === variants[0].name && !revectorize,
      router: 'threshold',
      precision,
      threads: [1, 2],
      async open({ steps, weights, config }, threads) {
        const backend = await open({ ...options, threads });
        const layer = backend.load(weights, config);
        return { run: step => layer.forward(steps[step].x).data, close: () => backend.dispose() };
      },
    };
  }),
);

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
  if (threads === options.threads && revectorized === options.features?.revectorize) return backend;
  backend.dispose();
  throw new Unavailable(threads === options.threads ? notUsed.revectorize : notUsed.threads);
}
