/** The `xmoe/model` door. */
export type { ModelConfig } from './config.js';
export { type EvaluateOptions, type Evaluation, evaluate, type TokenFacts, type WindowFacts } from './evaluate.js';
export { type GeneratedToken, type GenerateOptions, generate } from './generate.js';
export { attend, denseFfn, layerNorm } from './layers.js';
export { loadModel } from './load.js';
export { nextUint32, nextUniform, randomState } from './random.js';
export { type SampleOptions, sample } from './sample.js';
export { decoder, encode } from './tokenizer.js';
export { type Cache, emptyCache, type Run, type RunOptions, run } from './transformer.js';
export type { Attention, DenseFfn, Layer, LayerNorm, Linear, Model } from './types.js';
