/** The WebAssembly backend: kernels that the engine can run, threads, and the seam filled with them. */
import type { Backend, Config, Weights } from '../types.js';
import { checkLayer } from '../validate.js';
import type { ExpertFormat } from './formats.js';
import { HeldLayer, type Threads } from './held-layer.js';
import { narrowSet, withInt8Dot } from './kernel-set.js';
import { compileKernels, type KernelModule, type Target } from './kernels.js';
import { fused, WasmLayer } from './layer.js';
import { Memory } from './memory.js';
import { dispatch } from './open-layer.js';
import { checkOptions, type WasmInfo, type WasmOptions } from './options.js';
import { checkFloat32 } from './packed-weights.js';
import { Pool } from './pool.js';
import { revectorizedKernels } from './revectorize.js';
import { workerStarter } from './start-worker.js';
import { chooseTarget } from './target.js';
import { combine, route, runExperts } from './traced.js';
import { begin, workspaceOver } from './workspace.js';

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
  const { features = {}, deterministic = false, threads: numThreads = 1, experts = 'f32' } = options;
  const { target, notRelaxed } = await chooseTarget(features.relaxedSimd, deterministic);
  const choose = (isShared: boolean) => chooseKernels(target, isShared, experts, features.revectorize ?? false);
  const { threads, notThreads, notRevectorized } = await openThreads(choose, experts, numThreads);
  const notUsed = {
    ...(notRelaxed !== undefined && { relaxedSimd: notRelaxed }),
    ...(notRevectorized !== undefined && { revectorize: notRevectorized }),
    ...(notThreads !== undefined && { threads: notThreads }),
  };
  return backendOn(threads, {
    target,
    threads: threads.numThreads,
    kernels: threads.module.set,
    revectorized: notRevectorized === undefined,
    experts,
    notUsed,
  });
}

interface ChosenKernels {
  readonly module: KernelModule;
  readonly notRevectorized: string | undefined;
}

/** The wide kernels where they were asked for and can be had, else the narrow ones and the reason. */
async function chooseKernels(
  target: Target,
  isShared: boolean,
  experts: ExpertFormat,
  revectorize: boolean,
): Promise<ChosenKernels> {
  const wide = revectorize
    ? await revectorizedKernels(target, isShared, experts)
    : 'options.features.revectorize is not asked for';
  if (typeof wide !== 'string') return { module: wide, notRevectorized: undefined };
  const module = await compileKernels(target, isShared, narrowSet());
  return { module: experts === 'int8' ? await withInt8Dot(module) : module, notRevectorized: wide };
}

/** Threads as many as wanted, or one and the reason why there are no more. */
async function openThreads(
  choose: (isShared: boolean) => Promise<ChosenKernels>,
  experts: ExpertFormat,
  numThreads: number,
) {
  let notThreads = 'options.threads is 1';
  if (numThreads > 1) {
    const startWorker = await workerStarter();
    if (typeof startWorker === 'string') notThreads = startWorker;
    else {
      const { module, notRevectorized } = await choose(true);
      const pool = await Pool.open(module, numThreads, startWorker);
      if (typeof pool !== 'string') {
        const threads: Threads = { module, numThreads, pool, experts };
        return { threads, notThreads: undefined, notRevectorized };
      }
      notThreads = pool;
    }
  }
  const { module, notRevectorized } = await choose(false);
  const threads: Threads = { module, numThreads: 1, pool: undefined, experts };
  return { threads, notThreads, notRevectorized };
}

function backendOn(threads: Threads, info: WasmInfo): WasmBackend {
  const { module, pool } = threads;
  const scratch = workspaceOver(module, new Memory(0, module.isShared)); // for the stages that see no weights
  /** Of loaded layers, and of weights that the seam has seen. */
  const inMemory = new Set<HeldLayer>();
  const seen = new WeakMap<Weights, HeldLayer>();
  const forgotten = new FinalizationRegistry<HeldLayer>(layer => layer.dispose());
  let isDisposed = false;

  function inUse(): void {
    if (isDisposed) throw new Error('"backend" expected one in use, got one that was disposed of');
  }

  function hold(weights: Weights): HeldLayer {
    inUse();
    const layer = new HeldLayer(threads, weights, disposed => inMemory.delete(disposed));
    inMemory.add(layer);
    return layer;
  }

  /** The layer of weights that the seam passes in, packed when they are first seen. */
  function layerOf(weights: Weights): HeldLayer {
    inUse();
    const known = seen.get(weights);
    if (known) return known;
    const layer = hold(weights);
    seen.set(weights, layer);
    forgotten.register(weights, layer);
    return layer;
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
      begin(scratch);
      return dispatch(scratch, routing, inputs, config);
    },
    runExperts: (x, plan, weights, config) => layerOf(weights).run(runExperts(x, plan, config)),
    combine(expertOut, plan) {
      inUse();
      return combine(scratch, expertOut, plan);
    },
    fused(x, weights, config, inputs) {
      checkFloat32('x', x);
      return layerOf(weights).run(fused(x, inputs, config));
    },
    load(weights, config) {
      inUse();
      checkLayer(weights, config);
      return new WasmLayer(hold(weights), config);
    },
    dispose() {
      isDisposed = true;
      for (const layer of inMemory) layer.dispose();
      pool?.dispose();
    },
  };
}
