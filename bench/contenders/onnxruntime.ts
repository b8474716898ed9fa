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
  readonly Tensor: new (type: 'float32' | 'int64', data: Float32Array | BigInt64Array, dims: number[]) => Tensor;
}

interface RawSession {
  run(feeds: Feeds): Promise<Readonly<Record<string, { readonly data: Float32Array }>>>;
  release(): Promise<void>;
}

declare const tensor: unique symbol;
export interface Tensor {
  readonly [tensor]: never;
}
export type Feeds = Readonly<Record<string, Tensor>>;

export interface Session {
  /** The model's output y. */
  run(feeds: Feeds): Promise<Float32Array>;
  /** All of the model's outputs, by name. */
  runAll(feeds: Feeds): Promise<Readonly<Record<string, Float32Array>>>;
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
    close: () => session.release(),
  };
}

/** A matrix as a tensor of float32. */
export function floats(runtime: Runtime, { rows, cols, data }: Matrix): Tensor {
  const { Tensor } = loadPeer<OnnxRuntime>(runtime);
  return new Tensor('float32', data instanceof Float32Array ? data : new Float32Array(data), [rows, cols]);
}

/** Whole numbers as a tensor of int64. */
export function integers(runtime: Runtime, values: ArrayLike<number>, dims: number[]): Tensor {
  const { Tensor } = loadPeer<OnnxRuntime>(runtime);
  return new Tensor('int64', BigInt64Array.from(Array.from(values, BigInt)), dims);
}
