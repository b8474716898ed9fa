/** The oracle: hold a backend against recorded calls, stage by stage. */
export { type Bounds, errorBounds, U32 } from './bounds.js';
export { type CaseResult, runCase, type StageReport, type Verdict } from './compare.js';
