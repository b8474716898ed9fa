/**
 * What does the threshold save of what is read? Experts on demand: a prompt of each text and 200 bytes written after it, by
 * threshold and by budget. Counts, the same on every machine: plain SIMD, the most probable byte each time.
 *
 * Options  --json  --rows FILE
 */
import { readFileSync, statSync } from 'node:fs';
import { randomState, sample } from 'xmoe/model';
import { openRuntime, type ReadOptions, type Runtime } from 'xmoe/runtime';
import { emit, figures, table } from './report.js';

const MODEL = 'models/xmoe-gpt.safetensors';
const TEXTS = ['kjv', 'moby', 'sotu'];
/** Together they fill the context. */
const PROMPT_BYTES = 56;
const WRITTEN_BYTES = 200;
const THRESHOLDS = [0.3, 0.5, 0.7, 0.9, 'dense'] as const;
/** Of the experts that fit in memory. */
const BUDGETS = [0.25, 0.5, 1];

/** All texts together; what `--json` prints. */
interface Outcome {
  readonly threshold: number | 'dense';
  readonly budget: number;
  /** Bytes of the model file, and of those that are read when it is opened. */
  readonly fileBytes: number;
  readonly openBytes: number;
  /** Bytes read by text, those of the opening included. */
  readonly bytesRead: number[];
  /** Experts that a read of one byte needed, or of the prompt, layer by layer; and how many of them were read then. */
  numNeeded: number;
  numRead: number;
  /** The same of reads of one byte alone. */
  neededByBytes: number;
  readByBytes: number;
}

const fileBytes = statSync(MODEL).size;
const { numExperts, openBytes, expertBytes } = await sizes();
const outcomes: Outcome[] = [];
for (const threshold of THRESHOLDS) for (const budget of BUDGETS) outcomes.push(await outcomeOf(threshold, budget));
emit(outcomes, outcomeTable);

function opened(lazyExperts: { budget?: number }): Promise<Runtime> {
  return openRuntime(MODEL, { deterministic: true, lazyExperts });
}

async function sizes() {
  const runtime = await opened({});
  const { moeLayers, layer } = runtime.config;
  const numExperts = moeLayers.length * layer.numExperts;
  const before = runtime.usage;
  await runtime.stream().read(Uint8Array.of(0), { threshold: 'dense' });
  const expertBytes = (runtime.usage.weightBytes - before.weightBytes) / numExperts;
  runtime.dispose();
  return { numExperts, openBytes: before.bytesRead, expertBytes };
}

async function outcomeOf(threshold: number | 'dense', budget: number): Promise<Outcome> {
  const counts = { numNeeded: 0, numRead: 0, neededByBytes: 0, readByBytes: 0 };
  const outcome: Outcome = { threshold, budget, fileBytes, openBytes, bytesRead: [], ...counts };
  for (const text of TEXTS) {
    const runtime = await opened({ budget: budget * numExperts * expertBytes });
    await write(runtime, readFileSync(`models/text/${text}.txt`).subarray(0, PROMPT_BYTES), threshold, outcome);
    outcome.bytesRead.push(runtime.usage.bytesRead);
    runtime.dispose();
  }
  return outcome;
}

async function write(
  runtime: Runtime,
  prompt: Uint8Array,
  threshold: number | 'dense',
  outcome: Outcome,
): Promise<void> {
  const stream = runtime.stream();
  const readOptions: ReadOptions = { threshold, logits: 'last' };
  const random = randomState(0);
  let unread = prompt;
  for (let i = 0; i < WRITTEN_BYTES; i++) {
    const before = runtime.usage.experts.reads;
    const { logits, tokens } = await stream.read(unread, readOptions);
    const numRead = runtime.usage.experts.reads - before;
    const numNeeded = runtime.config.moeLayers.reduce(
      (sum, _, m) => sum + new Set(tokens.flatMap(token => token.layers[m].experts)).size,
      0,
    );
    outcome.numNeeded += numNeeded;
    outcome.numRead += numRead;
    if (i > 0) {
      outcome.neededByBytes += numNeeded;
      outcome.readByBytes += numRead;
    }
    unread = Uint8Array.of(sample(logits.data, { temperature: 0 }, random));
  }
}

function outcomeTable(): string[] {
  const titles = [
    'τ',
    'budget: experts',
    'experts for a byte',
    'experts read',
    'bytes read',
    'of the file',
    'hit rate',
    'of written bytes alone',
  ];
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const cells = outcomes.map(({ threshold, budget, bytesRead, numNeeded, numRead, neededByBytes, readByBytes }) => {
    const mean = bytesRead.reduce((a, b) => a + b) / TEXTS.length;
    return [
      ...[threshold, `${budget * numExperts}, ${100 * budget} %`],
      figures(neededByBytes / (TEXTS.length * (WRITTEN_BYTES - 1))),
      figures(numRead / TEXTS.length),
      `${(mean / 1e6).toFixed(2)} MB`,
      percent(mean / fileBytes),
      percent(1 - numRead / numNeeded),
      percent(1 - readByBytes / neededByBytes),
    ];
  });
  const opening = `The file: ${fileBytes} bytes, of which ${openBytes} are read when it is opened (${percent(openBytes / fileBytes)}).`;
  return [opening, '', ...table(titles, cells, 0)];
}
