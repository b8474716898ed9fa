/**
 * Every bench on this Node, one after the other, as one Markdown text: what is to be reached first, then each table with the
 * command that made it and how quiet the machine was. The text and the rows are written to FOLDER/results-VERSION.md and
 * .json. For several Nodes: run it with each, then summary.ts.
 *
 * Options  --only layer,kernels  --out FOLDER (default build/bench)
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir, totalmem, type } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Row } from './measure.js';
import { type Program, targetTable } from './targets.js';

interface Bench {
  readonly name: Program;
  readonly title: string;
  /** The file, if not of that name. */
  readonly file?: string;
  /** Of Node. */
  readonly flags?: readonly string[];
}

const major = Number(process.versions.node.split('.')[0]);
const relaxedFlag = major < 22 ? ['--experimental-wasm-relaxed-simd'] : [];

const benches: readonly Bench[] = [
  { name: 'layer', title: 'The layer, here and elsewhere' },
  { name: 'sparsity', title: 'Sparsity into time' },
  { name: 'threads', title: 'Threads' },
  { name: 'profile', title: 'Where the time of S1 goes' },
  { name: 'decode', title: 'Decode against reads of memory' },
  { name: 'kernels', title: 'Kernels against the peak', flags: relaxedFlag },
  ...(major < 24
    ? []
    : [
        {
          ...({ name: 'native', title: 'The same, revectorized', file: 'kernels' } as const),
          flags: ['--experimental-wasm-revectorize'],
        },
      ]),
  { name: 'kernels-model', title: "The language model's kernels against the peak", flags: relaxedFlag },
  { name: 'growth', title: 'How the cost grows' },
  { name: 'selection', title: 'Selections that differ from the reference' },
  { name: 'model', title: 'The language model, here and elsewhere' },
  { name: 'stages', title: 'Where the time of a read goes', file: 'model-stages' },
  { name: 'memory', title: 'Memory of the language model' },
  { name: 'reference', title: "The reference's product against the kernel" },
];

const names: readonly string[] = benches.map(({ name }) => name);
const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: names.join() },
    out: { type: 'string', default: 'build/bench' },
  },
});
const chosen = benches.filter(({ name }) => options.only.split(',').includes(name));
const unknown = options.only.split(',').find(name => !names.includes(name));
if (unknown !== undefined) throw new RangeError(`"--only" expected some of ${names.join()}, got ${unknown}`);
const folder = mkdtempSync(join(tmpdir(), 'xmoe-bench-'));
const runs: Partial<Record<Program, readonly Row[]>> = {};
const sections: string[] = [];
for (const bench of chosen) {
  const { rows, text } = await run(bench);
  runs[bench.name] = rows;
  sections.push(`### ${bench.title}\n\n${text}`);
}
rmSync(folder, { recursive: true });

const gigabytes = Math.round(totalmem() / 2 ** 30);
const machine = `${cpus()[0].model}, ${cpus().length} cores, ${gigabytes} GiB, ${type()} ${release()}`;
const heading = `## Node ${process.version}\n\n${machine}; V8 ${process.versions.v8}.`;
const markdown = `${[heading, targetTable(runs).join('\n'), ...sections].join('\n\n')}\n`;
const file = join(options.out, `results-${process.version}`);
writeFileSync(`${file}.md`, markdown);
writeFileSync(`${file}.json`, JSON.stringify(runs));
console.log(markdown);

/** What a bench prints; its notes go on to standard error, and those on quietness under the table too. */
async function run({ name, file = name, flags = [] }: Bench): Promise<{ rows: readonly Row[]; text: string }> {
  const program = fileURLToPath(new URL(`./${file}.js`, import.meta.url));
  const rowsFile = join(folder, `${name}.json`);
  const child = spawn(process.execPath, [...flags, program, '--rows', rowsFile], { stdio: ['ignore', 'pipe', 'pipe'] });
  let [table, notes] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', part => {
    table += part;
  });
  child.stderr.setEncoding('utf8').on('data', part => {
    notes += part;
    process.stderr.write(part);
  });
  const [code] = await once(child, 'close');
  if (code !== 0) {
    process.exitCode = 1; // the others go on
    return { rows: [], text: `Failed, with exit status ${code}.` };
  }
  const noise = notes.split('\n').filter(line => /quiet:/i.test(line));
  // Of whatever shape: the reason is the same.
  const absent = notes.split('\n').filter(line => /left out:/.test(line));
  const kept = [...new Set(absent.map(line => line.replace(/^S\d.*?: /, ''))), ...noise];
  const text = [table.trim(), ...(kept.length > 0 ? [['```', ...kept, '```'].join('\n')] : [])].join('\n\n');
  return { rows: JSON.parse(readFileSync(rowsFile, 'utf8')), text };
}
