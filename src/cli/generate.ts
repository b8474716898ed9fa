/** `xmoe generate`: a model continues a prompt. */
import { setImmediate } from 'node:timers/promises';
import { decoder, encode } from '../model/index.js';
import { type Arguments, parseArguments } from './arguments.js';
import type { Command } from './command.js';
import { modelHelp, modelOptions, thresholdOf, withModel } from './model.js';

const help = `xmoe generate MODEL --prompt TEXT [--max-tokens N] [--threshold τ] [--temperature t] [--top-k k] [--top-p p] [--seed s]

Prints the prompt and its continuation, byte by byte as it comes; on a terminal, at the end, how fast it came.

  --prompt TEXT    what to continue; at least one byte
  --max-tokens N   bytes to write (default 256)
  --temperature t  0 takes the most probable byte, 1 samples from the model's own probabilities (default 1)
  --top-k k        sample from the k most probable bytes (default all)
  --top-p p        sample from the fewest of these, most probable first, whose mass reaches p, 0 < p <= 1 (default 1)
  --seed s         the same seed writes the same text (default 0)
${modelHelp}

Exit status: 0 done, 2 bad usage or input.
`;

export const generateCommand: Command = {
  summary: 'continue a prompt, streaming',
  help,
  async run(argv) {
    const args = parseArguments(argv, ['MODEL'], {
      ...modelOptions,
      prompt: { type: 'string' },
      'max-tokens': { type: 'string' },
      temperature: { type: 'string' },
      'top-k': { type: 'string' },
      'top-p': { type: 'string' },
      seed: { type: 'string' },
    });
    const prompt = args.text('prompt');
    if (!prompt)
      throw new TypeError(`"--prompt" expected text to continue, got ${prompt === '' ? 'an empty one' : 'nothing'}`);
    const options = {
      maxTokens: args.number('max-tokens', { min: 0, integer: true }) ?? 256,
      temperature: args.number('temperature', { min: 0 }) ?? 1,
      ...topKOf(args),
      topP: args.number('top-p', { min: Number.MIN_VALUE, max: 1 }) ?? 1,
      seed: args.number('seed', { min: 0, max: 2 ** 32 - 1, integer: true }) ?? 0,
    };
    const routing = thresholdOf(args);
    await withModel(args.positionals[0], args, async model => {
      const utf8 = decoder();
      process.stdout.write(prompt);
      const started = performance.now();
      let numWritten = 0;
      for await (const { byte } of model.generate(encode(prompt), { ...routing, ...options })) {
        process.stdout.write(utf8.push(byte));
        numWritten++;
        await setImmediate(); // lets a closed pipe be noticed
      }
      process.stdout.write(`${utf8.end()}\n`);
      reportSpeed(numWritten, performance.now() - started, model.backend);
    });
    return 0;
  },
};

function topKOf(args: Arguments): { readonly topK?: number } {
  const topK = args.number('top-k', { min: 1, integer: true });
  return topK === undefined ? {} : { topK };
}

/** On stderr, where that is a terminal; nothing elsewhere. */
function reportSpeed(numWritten: number, milliseconds: number, backend: string): void {
  if (!process.stderr.isTTY || numWritten === 0) return;
  const [seconds, perSecond] = [milliseconds / 1000, (1000 * numWritten) / milliseconds];
  process.stderr.write(
    `${numWritten} bytes in ${seconds.toFixed(2)} s by ${backend}: ${perSecond.toFixed(0)} a second\n`,
  );
}
