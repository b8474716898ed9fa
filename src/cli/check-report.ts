/** The report of `xmoe check`, for a terminal and as JSON. */
import {
  type Arithmetic,
  type Conformance,
  describe,
  type Failure,
  type LayerCall,
  type ProbeReport,
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
  /** What the exact probes of the threshold told. */
  readonly probes?: ProbeReport;
  /** The call whose verdict is told in full, and the name of its file. */
  readonly shown?: { readonly name: string; readonly call: LayerCall; readonly conformance: Conformance };
  readonly failure?: Failure & { readonly replay: string };
}

/** XMoE's rule has relatives that only exact arithmetic tells apart from it. */
export function verdictOf({ tally, probes }: CheckReport): Conformance['verdict'] | 'nothing was judged' {
  const isRelative = probes?.rule !== undefined && probes.rule !== 'XMoE';
  if (tally.numConforming < tally.numCalls || isRelative) return 'does not conform';
  return tally.numUnjudged === tally.numCalls ? 'nothing was judged' : 'conforms';
}

export function printed(report: CheckReport): string {
  const { name, arithmetic, what, seconds, tally } = report;
  const { numCalls, numUnjudged } = tally;
  const calls = `${count(numCalls, 'call')} (${what}), arithmetic ${arithmetic.name}, ${seconds.toFixed(1)} s`;
  const why = tally.findings.get('property refused')?.first.detail ?? 'it gave no output that has a stage';
  return [
    `${name}: ${calls}`,
    ...(numUnjudged > 0 ? [`${numUnjudged} of them not taken: ${why}`] : []),
    '',
    ...stageTable(tally),
    ...findingLines(tally),
    ...probeLines(report),
    ...(report.shown ? ['', ...shownLines(report)] : []),
    '',
    conclusion(report),
  ].join('\n');
}

function conclusion(report: CheckReport): string {
  const { interrupted, tally } = report;
  const verdict = verdictOf(report);
  const on = verdict === 'conforms' ? ` on ${count(tally.numCalls - tally.numUnjudged, 'call')}` : '';
  return `${interrupted ? 'interrupted; so far ' : ''}${verdict}${on}`;
}

function probeLines({ probes }: CheckReport): string[] {
  if (!probes?.results.some(({ got }) => typeof got !== 'string')) return [];
  const { rule, ties, inexact } = probes;
  const known =
    rule === undefined ? 'by no rule that we know' : rule === 'XMoE' ? 'as XMoE does' : `by another rule: ${rule}`;
  return [
    `where arithmetic is exact, it selects ${known}${ties ? `; of equal probabilities, ${ties}` : ''}`,
    ...(inexact ? [`but its own probabilities are not exact there: ${inexact.got} for ${inexact.expected}`] : []),
  ];
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
    ...(failure ? failureLines(failure) : [`${name}:`]),
    `  ${sizesOf(call)}`,
    ...(conformance.stages.length > 0 ? describe(conformance).split('\n') : []).map(line => `  ${line}`.trimEnd()),
    ...(failure ? ['', `saved as ${name}; again by`, `  ${failure.replay}`] : []),
    ...(failure?.repeats === false
      ? ['it did not fail when put again: it depends on the calls before it, or on chance']
      : []),
  ];
}

/** What was seen of the call that failed: on a very small one more explanations fit. */
function failureLines({ index, call, conformance }: Failure): string[] {
  const { blamed, stages, findings } = conformance;
  const wrong = stages.find(({ stage, verdict }) => stage === blamed && verdict === 'disagree');
  const seen = wrong ?? findings.find(({ severity }) => severity === 'fault');
  return [
    `case ${index} fails${blamed ? ` at ${blamed}` : ''}: ${seen?.detail}`,
    `  ${sizesOf(call)}`,
    'the smallest call found that shows it:',
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
  if (!Number.isFinite(share)) return 'its bound is 0';
  if (share >= 10) return `${share.toPrecision(2)} times`;
  return `${share >= 0.1 ? Math.round(100 * share) : (100 * share).toPrecision(2)} %`;
}

function count(n: number, word: string): string {
  return `${n.toLocaleString('en')} ${word}${n === 1 ? '' : 's'}`;
}
