/** The oracle: a verdict on what any implementation computed, stage by stage, by computed bounds and margins. */
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
export { type Bounds, errorBounds, U32 } from './bounds.js';
export { type CaseResult, runCase } from './compare.js';
export { conform } from './conform.js';
export { describe, placeText, toJson } from './describe.js';
export { implementationOf } from './implementation.js';
export type { StageReport, Verdict } from './report.js';
export type * from './types.js';
