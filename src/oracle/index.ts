/** The oracle: hold a backend against recorded calls, stage by stage. */
export { type Bounds, errorBounds, U32 } from './bounds.js';
export { type CaseResult, runCase } from './compare.js';
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
export type { StageReport, Verdict } from './report.js';
export { type ShrinkLimits, shrink } from './shrink.js';
export * from './types.js';
