/** The WebAssembly backend: kernels that the engine can run, threads, and the seam filled with them. */
import type { Backend, Config, Weights } from '../types.js';
import { checkLayer } from '../validate.js';
import type { Threads } from './held.js';
import type { HeldLayer } from './hold-layer.js';
import { fused, WasmLayer } from './layer.js';
import { LayerStore } from './layer-store.js';
import { Memory } from './memory.js';
import { openEngine } from './open-engine.js';
import { dispatch } from './open-layer.js';
import { checkOptions, type WasmInfo, type WasmOptions } from './options.js';
import { checkFloat32 } from './packed-weights.js';
import { combine, route, runExperts } from './traced.js';
import { workspaceOver } from './workspace.js';

/**
 * A backend on WebAssembly SIMD. As a seam (`forward(backend, …)` of `xmoe`) it keeps every stage, and packs weights when
 * it first sees them; `load` gives a layer whose calls are fused.
 */
export interface WasmBackend extends Backend {
  readonly info: WasmInfo;
  /**
   * Packs the weights, once: later changes of the matrices do not reach the layer.
   *
   * @throws TypeError | RangeError for weights and config that do not fit together, that float32 cannot hold, or that
   *         need more memory than can be had: it says how much; Error after `dispose`
   */
  load(weights: Weights, config: Config): WasmLayer;
  /** Gives back the memory of every layer, and ends the threads; twice is once. Idle threads keep no process alive. */
  dispose(): void;
}

/**
 * Compile the kernels and make a backend of them. On workerd (Cloudflare Workers) await it at the top level of a module: the
 * engine compiles nothing while it answers requests.
 *
 * @throws TypeError | RangeError for options that are none; Error, saying what the engine lacks, where it cannot run what
 *         is required. Threads and vectors of 256 bits that cannot be had are no error: `info` says why
 */
export async function wasmBackend(options: WasmOptions = {}): Promise<WasmBackend> {
  checkOptions(options);
  const { threads, info } = await openEngine(options, options.experts ?? 'f32');
  return backendOn(threads, info);
}

function backendOn(threads: Threads, info: WasmInfo): WasmBackend {
  const { module, pool } = threads;
  const scratch = workspaceOver(module, new Memory(0, module.isShared)); // for the stages that see no weights
  const layers = new LayerStore(threads);
  let isDisposed = false;

  function inUse(): void {
    if (isDisposed) throw new Error('"backend" expected one in use, got one that was disposed of');
  }

  function layerOf(weights: Weights): HeldLayer {
    inUse();
    return layers.see(weights);
  }

  return {
    name: info.target === 'simd' ? 'wasm' : 'wasm-relaxed',
    precision: 'f32',
    info,
    route(x, weights) {
      checkFloat32('x', x);
      return layerOf(weights).run(route(x));
    },
    dispatch(routing, inputs, config) {
      inUse();
      scratch.memory.begin();
      return dispatch(scratch, routing, inputs, config);
    },
    runExperts: (x, plan, weights, config) => layerOf(weights).run(runExperts(x, plan, config)),
    combine(expertOut, plan) {
      inUse();
      return combine(scratch, expertOut, plan);
    },
    fused(x, weights, config, inputs) {
      checkFloat32('x', x);
      const { y, plan } = layerOf(weights).run(fused(x, inputs, config));
      return { y, plan: plan() };
    },
    load(weights, config) {
      inUse();
      checkLayer(weights, config);
      return new WasmLayer(layers.load(weights), config);
    },
    dispose() {
      isDisposed = true;
      layers.dispose();
      pool?.dispose();
    },
  };
}
