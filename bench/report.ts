/** Print what was measured: a Markdown table for people, rows as JSON for machines. */
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { relative } from 'node:path';
import { parseArgs } from 'node:util';
import type { Row } from './measure.js';

/**
 * The options of every bench, for `parseArgs`. `--json` prints the rows and nothing else; `--rows FILE` writes them there,
 * besides the table.
 */
export const outputOptions = { json: { type: 'boolean' }, rows: { type: 'string' } } as const;

/** A line for each shape, a column for each contender: median ms and GFLOP/s. `flops`: of one call at each shape. */
export function report(rows: readonly Row[], flops: ReadonlyMap<string, number>): void {
  const names = [...new Set(rows.map(({ contender }) => contender))];
  const cells = [...flops].map(([shape, ofCall]) => {
    const times = names.map(name => rows.find(row => row.shape === shape && row.contender === name)?.medianMs);
    return [shape, ...times.map(ms => (ms === undefined ? '' : `${figures(ms)}, ${figures(ofCall / ms / 1e6)}`))];
  });
  emit(rows, () => ['Median ms, GFLOP/s:', '', ...table(['', ...names], cells, 1)]);
}

/** What a call does, in flops or bytes; undefined leaves the cell empty. */
export interface Work {
  /** Of a billion in a second. */
  readonly unit: string;
  readonly perCall: (row: Row) => number | undefined;
}

/** A line for each row. */
export function tableOf(rows: readonly Row[], { unit, perCall }: Work): string[] {
  const cells = rows.map(row => {
    const { shape, contender, threads, medianMs, spread, timesOurs } = row;
    const work = perCall(row);
    const rate = work === undefined ? '' : figures(work / medianMs / 1e6);
    return [shape, contender, threads, figures(medianMs), spread.map(figures).join('–'), rate, figures(timesOurs)];
  });
  return table(['shape', 'contender', 'threads', 'median ms', 'p25–p75 ms', unit, 'times ours'], cells, 2);
}

/** A Markdown table; from column `firstNumber` on, to the right. */
export function table(
  titles: readonly string[],
  cells: readonly (readonly (string | number)[])[],
  firstNumber: number,
): string[] {
  const line = (parts: readonly (string | number)[]) => `| ${parts.join(' | ')} |`;
  return [line(titles), `|${titles.map((_, i) => (i < firstNumber ? '---|' : '---:|')).join('')}`, ...cells.map(line)];
}

/**
 * Print the rows as the command line asks for them: by default as `lines`, under the machine and the command, and with
 * `conclusion` below, which is left to those who take the rows.
 */
export function emit(
  rows: readonly object[],
  lines: () => readonly string[],
  conclusion: () => readonly string[] = () => [],
): void {
  const { values } = parseArgs({ options: outputOptions, strict: false });
  if (typeof values.rows === 'string') writeFileSync(values.rows, JSON.stringify(rows));
  if (values.json) console.log(JSON.stringify(rows, null, 2));
  else {
    const concluded = values.rows === undefined ? conclusion() : [];
    console.log([commandLine(), '', ...lines(), '', ...concluded].join('\n').trimEnd());
  }
}

/** The machine, Node, and how to run this again. */
function commandLine(): string {
  const [script, ...options] = process.argv.slice(1);
  const shown = options.filter((option, i) => option !== '--rows' && options[i - 1] !== '--rows');
  const command = ['node', ...process.execArgv, relative(process.cwd(), script), ...shown].join(' ');
  return `${cpus()[0].model}, Node ${process.version}: \`${command}\``;
}

/** Three figures. */
export function figures(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/** To standard error: what is measured goes to standard output. */
export function note(line: string): void {
  console.error(line);
}
