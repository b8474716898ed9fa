/** The layer on WebAssembly SIMD, for Node and browsers. */
export { type WasmBackend, type WasmInfo, type WasmOptions, wasmBackend } from './backend.js';
export type { WasmLayer } from './layer.js';
export { WorkerError } from './team.js';
