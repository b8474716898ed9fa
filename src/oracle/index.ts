/** The oracle: hold a backend against recorded calls, stage by stage. */
export { type Bounds, errorBounds, U32 } from './bounds.js';
export { type CaseResult, runCase } from './compare.js';
export { quantizedBound } from './quantized-bounds.js';
export type { StageReport, Verdict } from './report.js';
