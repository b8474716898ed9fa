/** The WebAssembly backend: chooses kernels that the engine can run, and fills the seam with them. */
import { integer, oneOf } from '../check.js';
import type { Backend, Config, Weights } from '../types.js';
import { hasFeature } from './engine.js';
import { compileKernels, type Target } from './kernels.js';
import { openLayer, type Threads, WasmLayer } from './layer.js';
import { Memory } from './memory.js';
import { checkFloat32 } from './packed-weights.js';
import { Pool } from './pool.js';
import { combine, dispatch, type OpenLayer, route, runExperts } from './stages.js';
import { begin, workspaceOver } from './workspace.js';

export interface WasmOptions {
  /** `simd`: the same bits on every machine; `relaxed`: fused multiply-add. Default: relaxed where the engine has it. */
  readonly target?: Target;
  /** Forces `simd`. */
  readonly deterministic?: boolean;
  /** How many threads a loaded layer computes on, from 1 to 256; 1 when absent. The stages of a trace run on one. */
  readonly threads?: number;
}

export interface WasmInfo {
  readonly target: Target;
  /** Threads in use: those asked for, or 1 where there can be no more. */
  readonly threads: number;
  /** Features of the engine that are not in use, each with the reason. */
  readonly notUsed: Readonly<Record<string, string>>;
}

/**
 * A backend on WebAssembly SIMD. As a seam (`forward(backend, …)` of `xmoe`) it keeps every stage, and packs weights when
 * it first sees them; `load` gives a layer whose calls are fused.
 */
export interface WasmBackend extends Backend {
  readonly info: WasmInfo;
  /** @throws as `WasmLayer` does; Error after `dispose` */
  load(weights: Weights, config: Config): WasmLayer;
  /** Gives back the memory of every layer, and ends the threads; twice is once. Idle threads keep no process alive. */
  dispose(): void;
}

/**
 * Compile the kernels and make a backend of them.
 *
 * @throws TypeError | RangeError for options that are none; Error, saying what the engine lacks, where it cannot run the
 *         target. Threads that cannot be had are no error: `info` says why
 */
export async function wasmBackend(options: WasmOptions = {}): Promise<WasmBackend> {
  const { target, deterministic = false, threads = 1 } = options;
  if (target !== undefined) oneOf('options.target', target, ['simd', 'relaxed']);
  integer('options.threads', threads, 1, MAX_THREADS);
  const { chosen, notUsed } = choose(target, deterministic);
  const oneThread: Threads = { module: await compileKernels(chosen, false), numThreads: 1, pool: undefined };
  const many = await threadsOf(chosen, threads);
  if (typeof many === 'string') {
    return backendOn(oneThread, oneThread, { target: chosen, threads: 1, notUsed: { ...notUsed, threads: many } });
  }
  return backendOn(oneThread, many, { target: chosen, threads, notUsed });
}

const MAX_THREADS = 256;

/** More threads than one, or the reason why there are none. */
async function threadsOf(target: Target, numThreads: number): Promise<Threads | string> {
  if (numThreads === 1) return 'options.threads is 1';
  const module = await compileKernels(target, true);
  const pool = await Pool.open(module, numThreads);
  return typeof pool === 'string' ? pool : { module, numThreads, pool };
}

function choose(
  wanted: Target | undefined,
  deterministic: boolean,
): { chosen: Target; notUsed: Record<string, string> } {
  if (!hasFeature('simd')) throw new Error('"engine" expected WebAssembly SIMD, got one without it');
  const hasRelaxed = hasFeature('relaxedSimd');
  if (wanted === 'relaxed' && deterministic) {
    throw new RangeError('"options.target" expected simd where options.deterministic is true, got "relaxed"');
  }
  if (wanted === 'relaxed' && !hasRelaxed) throw new Error(`"engine" expected relaxed SIMD, got ${LACKS_RELAXED}`);
  const chosen = wanted ?? (hasRelaxed && !deterministic ? 'relaxed' : 'simd');
  const reason = hasRelaxed ? 'the simd target was asked for' : LACKS_RELAXED;
  return { chosen, notUsed: chosen === 'simd' ? { relaxedSimd: reason } : {} };
}

const LACKS_RELAXED = 'an engine without it (Node 22 and later have it; Node 20 with --experimental-wasm-relaxed-simd)';

/** Stages run on one thread, loaded layers on `threads`. */
function backendOn(oneThread: Threads, threads: Threads, info: WasmInfo): WasmBackend {
  const scratch = workspaceOver(oneThread.module, new Memory(0, false)); // for the stages that see no weights
  const loaded = new Set<WasmLayer>();
  let opened = new WeakMap<Weights, OpenLayer>();
  let isDisposed = false;

  function inUse(): void {
    if (isDisposed) throw new Error('"backend" expected one in use, got one that was disposed of');
  }

  /** The layer of weights that the seam passes in, opened when they are first seen. */
  function layerOf(weights: Weights): OpenLayer {
    inUse();
    const layer = opened.get(weights) ?? openLayer(oneThread, weights);
    opened.set(weights, layer);
    return layer;
  }

  return {
    name: info.target === 'simd' ? 'wasm' : 'wasm-relaxed',
    precision: 'f32',
    info,
    route(x, weights) {
      checkFloat32('x', x);
      return route(layerOf(weights), x);
    },
    dispatch(routing, inputs, config) {
      inUse();
      begin(scratch);
      return dispatch(scratch, routing, inputs, config);
    },
    runExperts: (x, plan, weights, config) => runExperts(layerOf(weights), x, plan, config),
    combine(expertOut, plan) {
      inUse();
      return combine(scratch, expertOut, plan);
    },
    load(weights, config) {
      inUse();
      const layer = new WasmLayer(threads, weights, config);
      loaded.add(layer);
      return layer;
    },
    dispose() {
      isDisposed = true;
      opened = new WeakMap();
      for (const layer of loaded) layer.dispose();
      loaded.clear();
      threads.pool?.dispose();
    },
  };
}
