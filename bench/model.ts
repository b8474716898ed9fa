/**
 * How fast does the language model read, and write? At the threshold of its file: a prompt at once, of which the logits of the
 * last byte are wanted; and byte after byte behind a prompt, with the choice of the most probable next one each time.
 *
 * Options  --prompt 128,256  --decode 64  --threads 1,2  --only PARTS,OF,NAMES  --json  --rows FILE
 *
 * Each number of threads has a process of its own, in which the contenders take turns: onnxruntime-web fixes its threads
 * with its first session.
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Unavailable } from './contenders/contender.js';
import { type Entry, LONG, type Row, type Sampler, takeTurns } from './measure.js';
import { watchMachine } from './quiet.js';
import { check, mostProbable, type Wanted, WrongAnswer, wantedOf } from './reader-check.js';
import { readers } from './readers/index.js';
import type { Reader, ReaderContender, ShippedModel } from './readers/reader.js';
import { emit, note, outputOptions, tableOf } from './report.js';
import { targetTable } from './targets.js';
import { shippedModel, textOf } from './texts.js';

const { values: options } = parseArgs({
  options: {
    ...outputOptions,
    prompt: { type: 'string', default: '128,256' },
    decode: { type: 'string', default: '64' },
    threads: { type: 'string', default: '1,2' },
    only: { type: 'string', default: '' },
  },
});
const prompts = options.prompt.split(',').map(Number);
/** Bytes before those of a decode, and these. */
const [BEFORE, numSteps] = [128, Number(options.decode)];
const chosenThreads = options.threads.split(',').map(Number);
const wrong = chosenThreads.find(threads => !readers.some(reader => reader.threads.includes(threads)));
if (wrong !== undefined) throw new RangeError(`"--threads" expected 1, 2 or both, got ${options.threads}`);

const rows: Row[] = [];
for (const threads of chosenThreads)
  rows.push(...(chosenThreads.length === 1 ? await timeAll(threads) : timeInChild(threads)));

const numBytes = new Map([
  ...prompts.map((length): [string, number] => [promptShape(length), length]),
  [decodeShape(), 1],
]);
// Of a billion in a second is what the table divides by.
const work = { unit: 'bytes/s', perCall: ({ shape }: Row) => 1e9 * numBytes.get(shape)! };
emit(
  rows,
  () => tableOf(rows, work),
  () => targetTable({ model: rows }),
);

async function timeAll(threads: number): Promise<Row[]> {
  const shipped = shippedModel();
  const wanted = wantedOf(shipped.model);
  const chosen = readers.filter(({ name }) => options.only.split(',').some(part => name.includes(part)));
  const [entries, opened]: [Entry[], Reader[]] = [[], []];
  for (const contender of chosen.filter(contender => contender.threads.includes(threads))) {
    const reader = await open(contender, shipped, wanted, threads);
    if (!reader) continue;
    opened.push(reader);
    const { name, ours = false } = contender;
    for (const length of prompts)
      entries.push({ shape: promptShape(length), contender: name, threads, ours, run: promptOf(reader, length) });
    entries.push({ shape: decodeShape(), contender: name, threads, ours, run: decodeOf(reader) });
  }
  // A shape after the other: its contenders follow each other closely.
  entries.sort((a, b) => a.shape.localeCompare(b.shape));
  const noise = watchMachine();
  const timed = await takeTurns(entries, LONG);
  note(`threads ${threads}: ${noise().text}`);
  for (const reader of opened) await reader.close();
  return timed;
}

async function open(
  contender: ReaderContender,
  shipped: ShippedModel,
  wanted: Wanted,
  threads: number,
): Promise<Reader | undefined> {
  const { name, precision = 'f32' } = contender;
  try {
    const reader = await contender.open(shipped, threads);
    note(`threads ${threads}: ${name}: ${await check(reader, wanted, precision === 'f32')}`);
    return reader;
  } catch (error) {
    const isTheirs = error instanceof WrongAnswer && !name.startsWith('xmoe');
    if (!(error instanceof Unavailable || isTheirs)) throw error;
    note(`threads ${threads}: ${name} left out: ${error.message}`);
    return undefined;
  }
}

function promptShape(length: number): string {
  return `prompt of ${length}`;
}

function decodeShape(): string {
  return `byte after ${BEFORE} to ${BEFORE + numSteps - 1}`;
}

function promptOf(reader: Reader, length: number): () => unknown {
  const ids = textOf(length);
  return () => {
    reader.clear();
    return reader.read(ids);
  };
}

/** All read the bytes of the text, whatever they hold most probable: the same work. */
function decodeOf(reader: Reader): Sampler {
  const ids = textOf(BEFORE + numSteps);
  return {
    async sample(ms) {
      const samples: number[] = [];
      for (let total = 0; total < ms; ) {
        reader.clear();
        await reader.read(ids.subarray(0, BEFORE));
        for (let i = BEFORE; i < ids.length; i++) {
          const start = performance.now();
          mostProbable(await reader.read(ids.subarray(i, i + 1)));
          samples.push(performance.now() - start);
          total += samples.at(-1)!;
        }
      }
      return samples;
    },
  };
}

function timeInChild(threads: number): Row[] {
  const { prompt, decode, only } = options;
  const own = ['--prompt', prompt, '--decode', decode, '--threads', String(threads), '--only', only, '--json'];
  const command = [...process.execArgv, fileURLToPath(import.meta.url), ...own];
  return JSON.parse(
    execFileSync(process.execPath, command, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }),
  );
}
