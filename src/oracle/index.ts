/** The oracle: a verdict on what any implementation computed, stage by stage, by computed bounds and margins. */

export { adopt, type LayerFunction, type LooseOutputs } from './adopt.js';
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
export { type Behaviour, behaviours } from './behaviour.js';
export { approximately, type Bounds, errorBounds, type Operations } from './bounds.js';
export { type CaseResult, type OutputReport, runCase } from './compare.js';
export { conform } from './conform.js';
export { describe, placeText, toJson } from './describe.js';
export { type ExamineOptions, examine } from './examine.js';
export { implementationOf } from './implementation.js';
export { ImplementationError } from './implementation-error.js';
export {
  type Probe,
  type ProbeReport,
  type ProbeResult,
  probe,
  probesFor,
  type RuleName,
  type Seen,
} from './probes.js';
export {
  callOf,
  type Failure,
  faultOf,
  type Progress,
  type SearchOptions,
  type SearchReport,
  search,
} from './search.js';
export { type ShrinkLimits, shrink } from './shrink.js';
export { type FindingTally, type StageTally, shareOf, Tally } from './tally.js';
export type * from './types.js';
