/** The report of `xmoe check`, for a terminal and as JSON. */
import {
  type Arithmetic,
  type Conformance,
  describe,
  type Failure,
  type LayerCall,
  shareOf,
  type Tally,
} from '../oracle/index.js';

export interface CheckReport {
  readonly name: string;
  readonly arithmetic: Arithmetic;
  /** Which calls these were. */
  readonly what: string;
  readonly seconds: number;
  readonly tally: Tally;
  readonly interrupted: boolean;
  /** The call whose verdict is told in full, and the name of its file. */
  readonly shown?: { readonly name: string; readonly call: LayerCall; readonly conformance: Conformance };
  readonly failure?: Failure & { readonly replay: string };
}

export function printed(report: CheckReport): string {
  const { name, arithmetic, what, seconds, tally } = report;
  const { numCalls, numConforming, numRefused } = tally;
  const calls = `${count(numCalls, 'call')} (${what}), arithmetic ${arithmetic.name}, ${seconds.toFixed(1)} s`;
  return [
    `${name}: ${calls}`,
    ...(numRefused > 0
      ? [`${numRefused} of them not taken: ${tally.findings.get('property refused')?.first.detail}`]
      : []),
    '',
    ...stageTable(tally),
    ...findingLines(tally),
    ...(report.shown ? ['', ...shownLines(report)] : []),
    '',
    conclusion(report, numCalls - numConforming),
  ].join('\n');
}

function conclusion({ interrupted, tally }: CheckReport, numWrong: number): string {
  const soFar = interrupted ? 'interrupted; so far ' : '';
  if (numWrong > 0) return `${soFar}does not conform`;
  const numJudged = tally.numCalls - tally.numRefused;
  return numJudged === 0 ? `${soFar}nothing was judged` : `${soFar}conforms on ${count(numJudged, 'call')}`;
}

function stageTable(tally: Tally): string[] {
  const rows = Array.from(tally.stages, ([stage, t]) => {
    const { agree, admissible, disagree } = t.verdicts;
    const judged = agree + admissible + disagree;
    const share = t.worst ? shareText(shareOf(t.worst)) : '';
    const notes = [
      admissible > 0 && `${admissible} admissible`,
      t.numWarnings > 0 && `${t.numWarnings} past the probable bound`,
      t.verdicts['not judged'] > 0 && `${t.verdicts['not judged']} not judged: ${t.notJudged}`,
    ];
    const cells = [stage, judged, disagree, t.numAmbiguous, share].map(String);
    return { cells, note: notes.filter(Boolean).join('; ') };
  });
  if (rows.length === 0) return ['no stage was judged'];
  const head = { cells: ['stage', 'judged', 'wrong', 'ambiguous decisions', 'worst of its bound'], note: '' };
  const widths = head.cells.map((_, i) => Math.max(...[head, ...rows].map(({ cells }) => cells[i].length)));
  return [head, ...rows].map(({ cells, note }) => {
    const padded = cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])));
    return `  ${padded.join('  ')}  ${note}`.trimEnd();
  });
}

function findingLines(tally: Tally): string[] {
  return Array.from(tally.findings.values())
    .filter(({ first }) => first.kind !== 'refused')
    .map(({ first, count: times }) => {
      const often = times > 1 ? ` (${count(times, 'call')}; the first:)` : ':';
      return `${first.severity === 'fault' ? 'FAULT' : 'property'} ${first.kind}${often} ${first.detail}`;
    });
}

function shownLines({ shown, failure }: CheckReport): string[] {
  if (!shown) return [];
  const { call, conformance, name } = shown;
  return [
    ...(failure ? [`case ${failure.index} fails; the smallest call found that shows it:`] : [`${name}:`]),
    `  ${sizesOf(call)}`,
    ...describe(conformance)
      .split('\n')
      .map(line => `  ${line}`.trimEnd()),
    ...(failure ? ['', `saved as ${name}; again by`, `  ${failure.replay}`] : []),
    ...(failure?.repeats === false
      ? ['it did not fail when put again: it depends on the calls before it, or on chance']
      : []),
  ];
}

function sizesOf({ config, x, weights }: LayerCall): string {
  const { router, activation, numExperts, threshold, topK, capacityFactor, minCapacity, skipExpert } = config;
  const settings = [
    router,
    router === 'threshold' && `τ ${threshold}`,
    router === 'topk' && `k ${topK}`,
    capacityFactor === null ? 'no drop' : `γ ${capacityFactor}, C_min ${minCapacity ?? 4}`,
    skipExpert && 'skip expert',
    activation,
  ];
  return `T ${x.rows}, E ${numExperts}, d ${x.cols}, m ${weights.up[0].rows}; ${settings.filter(Boolean).join(', ')}`;
}

/** A difference against its bound: below it in percent, far above it in times. */
function shareText(share: number): string {
  if (!Number.isFinite(share)) return 'unbounded';
  if (share >= 10) return `${share.toPrecision(2)} times`;
  return `${share >= 0.1 ? Math.round(100 * share) : (100 * share).toPrecision(2)} %`;
}

function count(n: number, word: string): string {
  return `${n.toLocaleString('en')} ${word}${n === 1 ? '' : 's'}`;
}

/** One object; numbers that JSON has no word for are strings. */
export function jsonOf(report: CheckReport): string {
  const { name, arithmetic, what, seconds, tally, interrupted, shown, failure } = report;
  const { numCalls, numConforming, numRefused } = tally;
  const stages = Array.from(tally.stages, ([stage, t]) => ({ stage, ...t, worstShare: shareOf(t.worst) }));
  const findings = Array.from(tally.findings.values(), ({ first, count: numCalls }) => ({ ...first, numCalls }));
  const verdict = numConforming < numCalls ? 'does not conform' : 'conforms';
  const head = { implementation: name, arithmetic: arithmetic.name, calls: what, seconds, verdict, interrupted };
  const example = shown && { file: shown.name, config: shown.call.config, conformance: shown.conformance };
  const replay = failure && { case: failure.index, replay: failure.replay, repeats: failure.repeats };
  const all = {
    ...head,
    numCalls,
    numConforming,
    numRefused,
    stages,
    findings,
    ...(example && { example }),
    ...replay,
  };
  return JSON.stringify(
    all,
    (_, value) => (typeof value === 'number' && !Number.isFinite(value) ? String(value) : value),
    2,
  );
}
