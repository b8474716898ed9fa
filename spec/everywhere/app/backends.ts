/** The WebAssembly backends that the suite asks for, opened together: workerd compiles only while a worker starts. */
import { type WasmBackend, wasmBackend } from 'xmoe/wasm';

export interface Backends {
  /** The same bits everywhere. */
  readonly deterministic: WasmBackend;
  /** With relaxed SIMD, where the engine has it. */
  readonly fastest: WasmBackend;
  /** On two threads, where the engine has them; as `deterministic` else. */
  readonly threaded: WasmBackend;
}

export async function openBackends(): Promise<Backends> {
  const deterministic = await wasmBackend({ deterministic: true });
  const fastest = await wasmBackend();
  const threaded = await wasmBackend({ deterministic: true, threads: 2 });
  return { deterministic, fastest, threaded };
}
