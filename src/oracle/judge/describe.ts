/** A verdict for a person at a terminal, and for a program. */
import type { Conformance, Place, StageVerdicts } from '../types.js';

/**
 * Several lines: the verdict and the stage to look at; a line for each stage with its worst place; findings; warnings.
 * No line ends in a line break.
 */
export function describe(conformance: Conformance): string {
  const { stages, findings } = conformance;
  const width = Math.max(5, ...stages.map(({ stage }) => stage.length));
  const lines = [headline(conformance), `  ${'stage'.padEnd(width)}  verdict     worst error, its bound`];
  for (const judged of stages) {
    lines.push(`  ${judged.stage.padEnd(width)}  ${judged.verdict.padEnd(10)}  ${errorOf(judged)}`.trimEnd());
    const indent = ' '.repeat(width + 4);
    if (judged.verdict === 'disagree' && judged.worst) lines.push(`${indent}${placeText(judged.worst)}`);
    if (judged.detail) lines.push(`${indent}${judged.detail}`);
    if (judged.numAmbiguous > 0) lines.push(`${indent}ambiguous: ${ambiguousText(judged)}`);
    if (judged.warning) lines.push(`${indent}warning: ${judged.warning}`);
  }
  for (const { kind, severity, stage, detail } of findings) {
    lines.push(`  ${severity}: ${kind}${stage ? ` (${stage})` : ''}: ${detail}`);
  }
  return lines.join('\n');
}

function headline({ verdict, blamed, stages, findings }: Conformance): string {
  if (verdict === 'conforms') {
    const numJudged = stages.filter(stage => stage.verdict !== 'not judged').length;
    return `conforms: ${numJudged} of ${stages.length} stages judged`;
  }
  if (blamed) return `does not conform: look at ${blamed}`;
  return `does not conform: ${findings.find(({ severity }) => severity === 'fault')?.kind ?? ''}`;
}

function errorOf({ worst }: StageVerdicts): string {
  if (!worst) return '';
  const { difference, bound, likelyBound, ulps } = worst;
  const likely = likelyBound === undefined ? '' : `, likely at most ${short(likelyBound)}`;
  return `${short(difference)} of ${short(bound)} (${short(difference / bound)} of it, ${short(ulps)} ulp${likely})`;
}

/** Where, and what was expected there. */
export function placeText({ token, expert, column, reference, value, difference, bound }: Place): string {
  const where = Object.entries({ token, expert, column }).flatMap(([name, at]) =>
    at === undefined ? [] : [`${name} ${at}`],
  );
  const figures = `reference ${reference}, got ${value}, |difference| ${short(difference)}, bound ${short(bound)}`;
  return where.length > 0 ? `${where.join(', ')}: ${figures}` : figures;
}

function ambiguousText({ stage, numAmbiguous }: StageVerdicts): string {
  const counted = (unit: string) => `${numAmbiguous} ${unit}${numAmbiguous === 1 ? '' : 's'}`;
  if (stage === 'loss') return `${counted('token')} with several first choices`;
  return `${counted(stage === 'dispatch' ? 'expert' : 'token')} could rightly go either way`;
}

function short(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (value === 0) return '0';
  return Math.abs(value) >= 0.001 && Math.abs(value) < 1e5
    ? String(Number(value.toPrecision(3)))
    : value.toExponential(2);
}

/** A copy that JSON keeps as it is: numbers that are not finite, which JSON has not, become `"NaN"`, `"Infinity"`, `"-Infinity"`. */
export function toJson(conformance: Conformance): unknown {
  return JSON.parse(
    JSON.stringify(conformance, (_, value) =>
      typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
    ),
  );
}
