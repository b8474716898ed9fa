/** The report of `xmoe check` for a program. */
import { shareOf } from '../oracle/index.js';
import { type CheckReport, verdictOf } from './check-report.js';

/** One object; numbers that JSON has no word for are strings. */
export function jsonOf(report: CheckReport): string {
  const { name, arithmetic, what, seconds, tally, interrupted, probes, shown, failure } = report;
  const { numCalls, numConforming, numUnjudged } = tally;
  const stages = Array.from(tally.stages, ([stage, t]) => ({ stage, ...t, worstShare: shareOf(t.worst) }));
  const findings = Array.from(tally.findings.values(), ({ first, count: numCalls }) => ({ ...first, numCalls }));
  const head = {
    implementation: name,
    arithmetic: arithmetic.name,
    calls: what,
    seconds,
    verdict: verdictOf(report),
    interrupted,
  };
  const example = shown && { file: shown.name, config: shown.call.config, conformance: shown.conformance };
  const replay = failure && { case: failure.index, replay: failure.replay, repeats: failure.repeats };
  const all = {
    ...head,
    numCalls,
    numConforming,
    numUnjudged,
    stages,
    findings,
    ...(probes && { probes: { rule: probes.rule, ties: probes.ties } }),
    ...(example && { example }),
    ...replay,
  };
  return JSON.stringify(
    all,
    (_, value) => (typeof value === 'number' && !Number.isFinite(value) ? String(value) : value),
    2,
  );
}
