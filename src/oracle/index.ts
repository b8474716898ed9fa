/** The oracle: a verdict on what any implementation computed, stage by stage, by computed bounds and margins. */

export type { Approximate } from './bounds/approximate.js';
export {
  type Arithmetic,
  type ArithmeticName,
  type ArithmeticOptions,
  arithmeticNamed,
  type Elementary,
  type FloatFormat,
  formats,
  libraries,
} from './bounds/arithmetic.js';
export { approximately, type Bounds, errorBounds, type Operations } from './bounds/bounds.js';
export { type CaseResult, type OutputReport, runCase } from './judge/compare.js';
export { conform } from './judge/conform.js';
export { describe, placeText, toJson } from './judge/describe.js';
export { adopt, type LayerFunction, type LooseOutputs } from './search/adopt.js';
export { type Behaviour, behaviours } from './search/behaviour.js';
export { type ExamineOptions, examine } from './search/examine.js';
export { arithmeticOfBackend, implementationOf } from './search/implementation.js';
export { ImplementationError } from './search/implementation-error.js';
export {
  type Probe,
  type ProbeReport,
  type ProbeResult,
  probe,
  probesFor,
  type RuleName,
  type Seen,
} from './search/probes.js';
export {
  callOf,
  type Failure,
  faultOf,
  type Progress,
  type SearchOptions,
  type SearchReport,
  search,
} from './search/search.js';
export { type ShrinkLimits, shrink } from './search/shrink.js';
export { type FindingTally, type StageTally, shareOf, Tally } from './search/tally.js';
export type * from './types.js';
