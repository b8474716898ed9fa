/** The WebAssembly backends that the suite asks for, opened together: workerd compiles only while a worker starts. */
import { type WasmBackend, wasmBackend } from 'xmoe/wasm';

export interface Backends {
  /** The same bits everywhere. */
  readonly deterministic: WasmBackend;
  /** With relaxed SIMD, where the engine has it. */
  readonly fastest: WasmBackend;
  /** On two threads, where the engine has them; as `deterministic` else. */
  readonly threaded: WasmBackend;
  /** With all that must be asked for, where it can be had. The last to be opened: meanwhile it changes the engine. */
  readonly optedIn: WasmBackend;
}

export async function openBackends(): Promise<Backends> {
  const deterministic = await wasmBackend({ deterministic: true });
  const fastest = await wasmBackend();
  const threaded = await wasmBackend({ deterministic: true, threads: 2 });
  const optedIn = await wasmBackend({ features: { revectorize: true } });
  return { deterministic, fastest, threaded, optedIn };
}
