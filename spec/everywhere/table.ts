/** What was found, as a table in Markdown. */
import { FEATURES, type Outcome } from './app/check.js';

export interface Row {
  readonly place: string;
  /** Or why it was skipped. */
  readonly version: string;
  /** Absent where it was skipped; none where it broke down. */
  readonly outcomes?: readonly Outcome[];
}

/** A row a place, a column a feature; below them the reasons of what is not there. */
export function tableOf(rows: readonly Row[]): string {
  const reasons: string[] = [];
  const note = (reason: string) => {
    const known = reasons.indexOf(reason);
    return known >= 0 ? known + 1 : reasons.push(reason);
  };
  const cell = (outcomes: readonly Outcome[] | undefined, feature: string) => {
    if (!outcomes) return '';
    const ofFeature = outcomes.filter(outcome => outcome.feature === feature);
    if (ofFeature.length === 0 || ofFeature.some(({ verdict }) => verdict === 'failed')) return 'fails';
    const absent = ofFeature.find(({ verdict }) => verdict === 'absent');
    return absent ? `no (${note(absent.detail)})` : 'yes';
  };
  const columns = FEATURES.map(feature => (feature.startsWith('xmoe') ? `\`${feature}\`` : feature));
  const lines = [
    `| where | version | ${columns.join(' | ')} |`,
    `| --- | --- |${' --- |'.repeat(columns.length)}`,
    ...rows.map(
      ({ place, version, outcomes }) =>
        `| ${[place, version, ...FEATURES.map(feature => cell(outcomes, feature))].join(' | ')} |`,
    ),
    '',
    ...reasons.map((reason, i) => `${i + 1}. ${reason}`),
  ];
  return lines.join('\n');
}
