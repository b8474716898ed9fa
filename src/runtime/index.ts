/** The language model on WebAssembly SIMD, end to end, for Node and browsers. */
export { openRuntime } from './open.js';
export type {
  EvaluateOptions,
  GenerateOptions,
  LazyExperts,
  Reading,
  ReadOptions,
  RoutedToken,
  Runtime,
  RuntimeOptions,
  RuntimeUsage,
  Stream,
  Token,
  TokenCost,
} from './types.js';
