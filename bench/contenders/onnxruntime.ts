/** ONNX Runtime, native or compiled to WebAssembly: one interface, two packages. */
import type { Matrix } from 'xmoe';
import type { Model } from '../onnx-model.js';
import { encodeModel } from '../onnx-model.js';
import { loadPeer } from '../peers.js';

export type Runtime = 'onnxruntime-node' | 'onnxruntime-web';
export const runtimes: readonly Runtime[] = ['onnxruntime-node', 'onnxruntime-web'];

/** The little of onnxruntime-common that is used here. */
interface OnnxRuntime {
  readonly env: { readonly wasm: { numThreads?: number } };
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<RawSession> };
  readonly Tensor: new (type: string, data: Float32Array | Int32Array | BigInt64Array, dims: number[]) => Tensor;
}

interface RawSession {
  run(feeds: Feeds): Promise<Readonly<Record<string, Tensor>>>;
  release(): Promise<void>;
}

declare const tensor: unique symbol;
export interface Tensor {
  readonly [tensor]: never;
  /** Of a tensor of float32. */
  readonly data: Float32Array;
}
export type Feeds = Readonly<Record<string, Tensor>>;

export interface Session {
  /** The model's output y. */
  run(feeds: Feeds): Promise<Float32Array>;
  /** All of the model's outputs, by name. */
  runAll(feeds: Feeds): Promise<Readonly<Record<string, Float32Array>>>;
  /** The same as tensors, which may be fed to another call as they are. */
  runTensors(feeds: Feeds): Promise<Readonly<Record<string, Tensor>>>;
  close(): Promise<void>;
}

export interface SessionOptions {
  readonly threads: number;
  /**
   * Whether a thread that has run out of work waits in a loop for more, for a while: quicker where work comes soon. Many
   * sessions would spin against each other. onnxruntime-web has one pool for all sessions, and no say in it.
   */
  readonly spin: boolean;
}

/** The first session of onnxruntime-web in a process decides the number of threads for all. */
export async function openSession(runtime: Runtime, model: Model, { threads, spin }: SessionOptions): Promise<Session> {
  const ort = loadPeer<OnnxRuntime>(runtime);
  if (runtime === 'onnxruntime-web') ort.env.wasm.numThreads = threads;
  const session = await ort.InferenceSession.create(encodeModel(model), {
    executionProviders: [runtime === 'onnxruntime-node' ? 'cpu' : 'wasm'],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    extra: { session: { intra_op: { allow_spinning: spin ? '1' : '0' } } },
  });
  return {
    run: async feeds => (await session.run(feeds)).y.data,
    async runAll(feeds) {
      const outputs = Object.entries(await session.run(feeds));
      return Object.fromEntries(outputs.map(([name, { data }]) => [name, data]));
    },
    runTensors: feeds => session.run(feeds),
    close: () => session.release(),
  };
}

/** A matrix as a tensor of float32. */
export function floats(runtime: Runtime, { rows, cols, data }: Matrix): Tensor {
  return tensorOf(runtime, data instanceof Float32Array ? data : new Float32Array(data), [rows, cols]);
}

/** Whole numbers as a tensor of int64. */
export function integers(runtime: Runtime, values: ArrayLike<number>, dims: number[]): Tensor {
  return tensorOf(runtime, BigInt64Array.from(Array.from(values, BigInt)), dims);
}

/** Numbers as a tensor of their own type. */
export function tensorOf(runtime: Runtime, data: Float32Array | Int32Array | BigInt64Array, dims: number[]): Tensor {
  const { Tensor } = loadPeer<OnnxRuntime>(runtime);
  const type = data instanceof Float32Array ? 'float32' : data instanceof Int32Array ? 'int32' : 'int64';
  return new Tensor(type, data, dims);
}
