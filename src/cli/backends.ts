/** The backends that the command line knows by name, and the options that choose one. */
import { referenceF32 } from '../float32.js';
import { reference } from '../moe.js';
import type { Backend } from '../types.js';
import { type WasmBackend, wasmBackend } from '../wasm/index.js';
import type { Arguments } from './arguments.js';

const inJavaScript: Readonly<Record<string, Backend>> = { reference, 'reference-f32': referenceF32 };
const wasmNames = ['wasm', 'wasm-relaxed'];

export const backendOptions = {
  backend: { type: 'string' },
  threads: { type: 'string' },
  'enable-relaxed-simd': { type: 'boolean' },
} as const;

/** @param what the backend is for */
export const backendHelp = (what: string) => `\
  --backend NAME   ${what}: ${[...Object.keys(inJavaScript), ...wasmNames].join(' | ')} (default reference)
  --threads N      with wasm and wasm-relaxed: compute on N threads (default 1), with the same bits
  --enable-relaxed-simd
                   with wasm-relaxed: set V8's flag for it where Node has it behind one (Node 20)`;

/**
 * Lends `use` the backend that the arguments choose, and disposes of it.
 *
 * @throws RangeError for an unknown name, TypeError for an option that would have no effect; Error, with the reason, where
 *         the engine cannot run it
 */
export async function withBackend<Result>(
  args: Arguments,
  use: (backend: Backend) => Result | Promise<Result>,
): Promise<Result> {
  const name = args.text('backend') ?? reference.name;
  const threads = args.number('threads', { min: 1, integer: true });
  const enablesRelaxed = args.flag('enable-relaxed-simd');
  if (enablesRelaxed && name !== 'wasm-relaxed') throw withoutEffect('--enable-relaxed-simd', 'wasm-relaxed', name);
  if (Object.hasOwn(inJavaScript, name)) {
    if (threads !== undefined) throw withoutEffect('--threads', wasmNames.join(' | '), name);
    return use(inJavaScript[name]);
  }
  if (!wasmNames.includes(name)) {
    throw new RangeError(
      `"--backend" expected ${[...Object.keys(inJavaScript), ...wasmNames].join(' | ')}, got "${name}"`,
    );
  }
  const backend = await openWasm(name, threads, enablesRelaxed);
  try {
    return await use(backend);
  } finally {
    backend.dispose();
  }
}

async function openWasm(name: string, threads = 1, enablesRelaxed: boolean): Promise<WasmBackend> {
  const relaxedSimd = name === 'wasm-relaxed' && (enablesRelaxed ? 'enable' : true);
  const backend = await wasmBackend({ features: { relaxedSimd }, threads });
  if (backend.info.threads === threads) return backend;
  backend.dispose();
  throw new Error(`"--threads" expected threads that can be had, got ${threads}: ${backend.info.notUsed.threads}`);
}

function withoutEffect(option: string, wanted: string, name: string): Error {
  return new TypeError(`"${option}" expected --backend ${wanted} beside it, got ${name}`);
}
