/** What a user may ask of the backend, and what it says of itself. */
import { checkObject, integer, oneOf, show, unexpected } from '../check.js';
import { type ExpertFormat, expertFormats } from './formats.js';
import type { KernelSet, Target } from './kernels.js';

/** What is asked of the engine. */
export interface EngineOptions {
  readonly features?: WasmFeatures;
  /** How many threads compute, from 1 to 256; 1 when absent. It never changes a bit. */
  readonly threads?: number;
  /** The same bits on every machine: target `simd`, whatever the engine has. Default false. */
  readonly deterministic?: boolean;
}

export interface WasmOptions extends EngineOptions {
  /**
   * How experts' weights are stored, in every layer of the backend: `f32`, the default, `f16`, `bf16` or `int8`. Half and
   * a quarter of the memory, and where weights come from far (few tokens) of the time; other results.
   */
  readonly experts?: ExpertFormat;
}

/** Features of the engine that speed the layer up. */
export interface WasmFeatures {
  /**
   * Target `relaxed`: fused multiply-add, whose bits may differ from machine to machine. Absent: where the engine has it;
   * `false`: not used; `true`: required.
   *
   * `'enable'`: required, and where Node has it behind a flag (Node 20) the flag is set, by `v8.setFlagsFromString(
   * '--experimental-wasm-relaxed-simd')`. That reaches the whole process: all WebAssembly that is compiled from then on,
   * in every thread, whoever wrote it, may use these instructions. It stays set.
   */
  readonly relaxedSimd?: boolean | 'enable';
  /**
   * Vectors of 256 bits, on Node from 24 on, x64, not macOS: up to twice as fast, with the same bits. Default false.
   *
   * V8 has this as an experiment (`--experimental-wasm-revectorize`), which is known to miscompile some code that is not
   * ours. It is set by `v8.setFlagsFromString` while the kernels are compiled, checked bit by bit against themselves without
   * it, and timed, and it is taken back when that is done: some tenths of a second when the first backend asks for it.
   * **Meanwhile it reaches the whole process**: other WebAssembly that V8 optimises in that time, in any thread, is compiled
   * with it and stays so. What cannot be had is no error: `info` says why. The environment variable XMOE_NO_REVECTORIZE=1
   * forbids it.
   */
  readonly revectorize?: boolean;
}

export interface WasmInfo {
  readonly target: Target;
  /** Threads in use: those asked for, or 1 where there can be no more. */
  readonly threads: number;
  /** The kernels in use: outputs of a panel of weights, and the most rows of a tile. */
  readonly kernels: KernelSet;
  /** Whether V8 compiled them for vectors of 256 bits. */
  readonly revectorized: boolean;
  /** How experts' weights are stored; in a runtime those of all products. */
  readonly experts: ExpertFormat;
  /** For each feature that is not in use, the reason. */
  readonly notUsed: { readonly [F in 'relaxedSimd' | 'revectorize' | 'threads']?: string };
}

const MAX_THREADS = 256;

/** @throws TypeError | RangeError for what is no option, or no value of it */
export function checkOptions(options: WasmOptions): void {
  checkNames('options', options, ['deterministic', 'experts', 'features', 'threads']);
  checkEngineOptions(options);
  if (options.experts !== undefined) oneOf('options.experts', options.experts, expertFormats);
}

/** @throws TypeError | RangeError for what is no value of an option */
export function checkEngineOptions({ features, deterministic, threads }: EngineOptions): void {
  if (features !== undefined) {
    checkNames('options.features', features, ['relaxedSimd', 'revectorize']);
    const { relaxedSimd, revectorize } = features;
    if (relaxedSimd !== undefined) oneOf('options.features.relaxedSimd', relaxedSimd, [true, false, 'enable']);
    if (revectorize !== undefined) oneOf('options.features.revectorize', revectorize, [true, false]);
  }
  if (deterministic !== undefined) oneOf('options.deterministic', deterministic, [true, false]);
  if (threads !== undefined) integer('options.threads', threads, 1, MAX_THREADS);
}

/** A misspelt option would be one without effect. */
export function checkNames(name: string, value: object, known: readonly string[]): void {
  checkObject(name, value);
  const unknown = Object.keys(value).find(key => !known.includes(key));
  if (unknown !== undefined) throw unexpected(TypeError, name, `none but ${known.join(', ')}`, show(unknown));
}
