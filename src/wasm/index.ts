/** The layer on WebAssembly SIMD, for Node and browsers. */
export { type WasmBackend, wasmBackend } from './backend.js';
export { type ExpertFormat, expertFormats } from './formats.js';
export type { WasmLayer } from './layer.js';
export type { EngineOptions, WasmFeatures, WasmInfo, WasmOptions } from './options.js';
export { WorkerError } from './team.js';
