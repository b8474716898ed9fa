/** The backends that the command line knows by name, and the options that choose one. */
import { referenceF32 } from '../float32.js';
import { reference } from '../moe.js';
import type { Backend } from '../types.js';
import { type EngineOptions, type ExpertFormat, expertFormats, type WasmInfo, wasmBackend } from '../wasm/index.js';
import type { Arguments } from './arguments.js';

const inJavaScript: Readonly<Record<string, Backend>> = { reference, 'reference-f32': referenceF32 };
const wasmNames = ['wasm', 'wasm-relaxed'];
export const backendNames = [...Object.keys(inJavaScript), ...wasmNames];
const names = backendNames.join(' | ');

export const engineOptions = {
  backend: { type: 'string' },
  threads: { type: 'string' },
  'enable-relaxed-simd': { type: 'boolean' },
  revectorize: { type: 'boolean' },
} as const;

export const backendOptions = { ...engineOptions, experts: { type: 'string' } } as const;

/** The options of the WebAssembly backends, but for the format of weights. */
const engineHelp = `\
  --threads N      with wasm and wasm-relaxed: compute on N threads (default 1), with the same bits
  --enable-relaxed-simd
                   with wasm-relaxed: set V8's flag for it where Node has it behind one (Node 20)
  --revectorize    with wasm and wasm-relaxed: vectors of 256 bits, with the same bits (Node 24 and later, x64)`;

export const wasmHelp = `\
${engineHelp}
  --experts FORMAT with wasm and wasm-relaxed: how experts' weights are stored, ${expertFormats.join(' | ')} (default f32)`;

/** @param what the backend is for */
const nameHelp = (what: string) => `  --backend NAME   ${what}: ${names} (default reference)`;

export const backendHelp = (what: string) => `\
${nameHelp(what)}
${wasmHelp}`;

/** Of a whole model: on WebAssembly all of its weights have a format. */
export const modelBackendHelp = `\
${nameHelp('runs the model (reference-f32: its XMoE layers)')}
${engineHelp}
  --weights FORMAT with wasm and wasm-relaxed: how weights are stored, ${expertFormats.join(' | ')} (default f32)`;

/** A backend that was opened for a command. */
export interface OpenBackend {
  readonly backend: Backend;
  close(): void;
}

/**
 * The backend that the arguments choose.
 *
 * @throws RangeError for an unknown name, TypeError for an option that would have no effect; Error, with the reason, where
 *         the engine cannot run it
 */
export async function openBackend(args: Arguments): Promise<OpenBackend> {
  const name = args.text('backend') ?? reference.name;
  if (wasmNames.includes(name)) return openWasm(args);
  if (!Object.hasOwn(inJavaScript, name)) throw new RangeError(`"--backend" expected ${names}, got "${name}"`);
  for (const option of ['threads', 'enable-relaxed-simd', 'revectorize', 'experts', 'weights']) {
    if (args.isGiven(option)) throw withoutEffect(option, wasmNames.join(' | '), name);
  }
  return { backend: inJavaScript[name], close() {} };
}

/** Lends `use` the backend that the arguments choose. @throws as `openBackend` does */
export async function withBackend<Result>(
  args: Arguments,
  use: (backend: Backend) => Result | Promise<Result>,
): Promise<Result> {
  const { backend, close } = await openBackend(args);
  try {
    return await use(backend);
  } finally {
    close();
  }
}

/** Whether the arguments choose a backend on WebAssembly. */
export function isOnWasm(args: Arguments): boolean {
  return wasmNames.includes(args.text('backend') ?? '');
}

async function openWasm(args: Arguments): Promise<OpenBackend> {
  const backend = await engineOf(args, 'experts', (options, experts) => wasmBackend({ ...options, experts }));
  return { backend, close: () => backend.dispose() };
}

/**
 * What `open` makes of the arguments of a backend on WebAssembly.
 *
 * @param formatOption how the format of weights is called
 * @throws RangeError | TypeError for options; Error, with the reason, where what they ask for cannot be had
 */
export async function engineOf<Engine extends { readonly info: WasmInfo; dispose(): void }>(
  args: Arguments,
  formatOption: 'experts' | 'weights',
  open: (options: EngineOptions, format: ExpertFormat) => Promise<Engine>,
): Promise<Engine> {
  const name = args.text('backend')!;
  const enables = args.flag('enable-relaxed-simd');
  if (enables && name === 'wasm') throw withoutEffect('enable-relaxed-simd', 'wasm-relaxed', name);
  const relaxedSimd = name === 'wasm-relaxed' && (enables ? 'enable' : true);
  const revectorize = args.flag('revectorize');
  const threads = args.number('threads', { min: 1, integer: true }) ?? 1;
  const format = formatOf(formatOption, args);
  const engine = await open({ features: { relaxedSimd, revectorize }, threads }, format);
  const { info } = engine;
  const missing =
    (info.threads !== threads && notHad('threads', info.notUsed.threads)) ||
    (info.revectorized !== revectorize && notHad('revectorize', info.notUsed.revectorize));
  if (!missing) return engine;
  engine.dispose();
  throw missing;
}

function formatOf(option: string, args: Arguments): ExpertFormat {
  const given = args.text(option) ?? 'f32';
  const format = expertFormats.find(name => name === given);
  if (format) return format;
  throw new RangeError(`"--${option}" expected ${expertFormats.join(' | ')}, got "${given}"`);
}

/** On the command line what cannot be had is an error: nobody reads `info` there. */
function notHad(option: string, reason: string | undefined): Error {
  return new Error(`"--${option}" expected what can be had here, got none: ${reason}`);
}

function withoutEffect(option: string, wanted: string, name: string): Error {
  return new TypeError(`"--${option}" expected --backend ${wanted} beside it, got ${name}`);
}
