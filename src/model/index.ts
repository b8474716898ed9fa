/** The `xmoe/model` door. */
export type { ModelConfig } from './config.js';
export { type EvaluateOptions, type Evaluation, evaluate, type TokenFacts, type WindowFacts } from './evaluate.js';
export { type GeneratedToken, type GenerateOptions, generate } from './generate.js';
export { attend, denseFfn, layerNorm } from './layers.js';
export { loadModel } from './load.js';
export { type OpenOptions, openModel } from './open.js';
export { nextUint32, nextUniform, randomState } from './random.js';
export { type SampleOptions, sample } from './sample.js';
export { type Abort, type Address, type BlobLike, type ByteStream, type ModelSource, SourceError } from './source.js';
export { decoder, encode } from './tokenizer.js';
export { type Cache, emptyCache, type Run, type RunOptions, run } from './transformer.js';
export type { Attention, DenseFfn, Layer, LayerNorm, Linear, Model } from './types.js';
