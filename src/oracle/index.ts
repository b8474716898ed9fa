/** The oracle: a verdict on what any implementation computed, stage by stage, by computed bounds and margins. */

export type { Approximate } from './approximate.js';
export {
  type Arithmetic,
  type ArithmeticName,
  type ArithmeticOptions,
  arithmeticNamed,
  type Elementary,
  type FloatFormat,
  formats,
  libraries,
} from './arithmetic.js';
export { approximately, type Bounds, errorBounds, type Operations } from './bounds.js';
export { type CaseResult, type OutputReport, runCase } from './compare.js';
export { conform } from './conform.js';
export { describe, placeText, toJson } from './describe.js';
export { implementationOf } from './implementation.js';
export type * from './types.js';
