/** `xmoe generate`: a model continues a prompt. */
import { setImmediate } from 'node:timers/promises';
import { decoder, encode, generate } from '../model/index.js';
import { parseArguments } from './arguments.js';
import type { Command } from './command.js';
import { modelHelp, modelOptions, readModel, withRunOptions } from './model.js';

const help = `xmoe generate MODEL --prompt TEXT [--max-tokens N] [--threshold τ] [--temperature t] [--top-p p] [--seed s]

Prints the prompt and its continuation, byte by byte as it comes.

  --prompt TEXT    what to continue; at least one byte
  --max-tokens N   bytes to write (default 256)
  --temperature t  0 takes the most probable byte, 1 samples from the model's own probabilities (default 1)
  --top-p p        sample from the fewest most probable bytes whose mass reaches p, 0 < p <= 1 (default 1)
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
      'top-p': { type: 'string' },
      seed: { type: 'string' },
    });
    const prompt = args.text('prompt');
    if (!prompt)
      throw new TypeError(`"--prompt" expected text to continue, got ${prompt === '' ? 'an empty one' : 'nothing'}`);
    const options = {
      maxTokens: args.number('max-tokens', { min: 0, integer: true }) ?? 256,
      temperature: args.number('temperature', { min: 0 }) ?? 1,
      topP: args.number('top-p', { min: Number.MIN_VALUE, max: 1 }) ?? 1,
      seed: args.number('seed', { min: 0, max: 2 ** 32 - 1, integer: true }) ?? 0,
    };
    const model = readModel(args.positionals[0]);
    await withRunOptions(args, async runOptions => {
      const tokens = generate(model, encode(prompt), { ...runOptions, ...options });
      const utf8 = decoder();
      process.stdout.write(prompt);
      for (const { byte } of tokens) {
        process.stdout.write(utf8.push(byte));
        await setImmediate(); // lets a closed pipe be noticed
      }
      process.stdout.write(`${utf8.end()}\n`);
    });
    return 0;
  },
};
