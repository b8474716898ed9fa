/** The WebAssembly backend: chooses kernels that the engine can run, and fills the seam with them. */
import { oneOf } from '../check.js';
import type { Backend, Config, Weights } from '../types.js';
import { hasFeature } from './engine.js';
import { compileKernels, type KernelModule, type Target } from './kernels.js';
import { openLayer, WasmLayer } from './layer.js';
import { Memory } from './memory.js';
import { checkFloat32 } from './packed-weights.js';
import { combine, dispatch, type OpenLayer, route, runExperts } from './stages.js';
import { begin, workspaceOver } from './workspace.js';

export interface WasmOptions {
  /** `simd`: the same bits on every machine; `relaxed`: fused multiply-add. Default: relaxed where the engine has it. */
  readonly target?: Target;
  /** Forces `simd`. */
  readonly deterministic?: boolean;
}

export interface WasmInfo {
  readonly target: Target;
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
  /** Gives back the memory of every layer; twice is once. */
  dispose(): void;
}

/**
 * Compile the kernels and make a backend of them.
 *
 * @throws RangeError for a target that is none; Error, saying what the engine lacks, where it cannot run the target
 */
export async function wasmBackend({ target, deterministic = false }: WasmOptions = {}): Promise<WasmBackend> {
  if (target !== undefined) oneOf('options.target', target, ['simd', 'relaxed']);
  const { chosen, notUsed } = choose(target, deterministic);
  const module = await compileKernels(chosen);
  return backendOn(module, { target: chosen, notUsed });
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
  return { chosen, notUsed: { ...(chosen === 'simd' && { relaxedSimd: reason }), threads: 'not yet in this version' } };
}

const LACKS_RELAXED = 'an engine without it (Node 22 and later have it; Node 20 with --experimental-wasm-relaxed-simd)';

function backendOn(module: KernelModule, info: WasmInfo): WasmBackend {
  const scratch = workspaceOver(module, new Memory(0)); // for the stages that see no weights
  const loaded = new Set<WasmLayer>();
  let opened = new WeakMap<Weights, OpenLayer>();
  let isDisposed = false;

  function inUse(): void {
    if (isDisposed) throw new Error('"backend" expected one in use, got one that was disposed of');
  }

  /** The layer of weights that the seam passes in, opened when they are first seen. */
  function layerOf(weights: Weights): OpenLayer {
    inUse();
    const layer = opened.get(weights) ?? openLayer(module, weights);
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
      const layer = new WasmLayer(module, weights, config);
      loaded.add(layer);
      return layer;
    },
    dispose() {
      isDisposed = true;
      opened = new WeakMap();
      for (const layer of loaded) layer.dispose();
      loaded.clear();
    },
  };
}
