/** `xmoe vectors`: random layer calls as files, with what the reference computes. */
import { join } from 'node:path';
import { callOf } from '../oracle/index.js';
import { parseArguments, writableFolder, writeOutput } from './arguments.js';
import { caseFile } from './case-file.js';
import type { Command } from './command.js';
import { wantedHelp, wantedOf, wantedOptions } from './wanted.js';

const help = `xmoe vectors DIR [--count N] [--seed S] [--grad]

Writes N random layer calls, the first that xmoe check would ask with this seed, as layer cases
(spec/SEMANTICS.md, "Layer-case files"): inputs, weights and, under out.*, what the reference computes. DIR/manifest.json
lists them. For each NAME.safetensors write what you compute to NAME.out.safetensors: any of logits, probs, selected, kept,
combine, y, load_balancing_loss, with or without "out." before the name; then xmoe check --files DIR judges it. A case
that yours does not take: a file without tensors, and why under "refused" in its metadata.

  --count N        (default 100)
  --seed S         the same seed writes the same files (default 0)
${wantedHelp}
  --grad           a cotangent grad.y, and the gradients under out.grad.*

Exit status: 0 done, 2 bad usage.
`;

export const vectorsCommand: Command = {
  summary: 'random layer calls as files, with expected outputs',
  help,
  run(argv) {
    const args = parseArguments(argv, ['DIR'], {
      ...wantedOptions,
      ...{ count: { type: 'string' }, seed: { type: 'string' }, grad: { type: 'boolean' } },
    });
    const count = args.number('count', { min: 1, integer: true }) ?? 100;
    const seed = args.number('seed', { min: 0, max: 2 ** 32 - 1, integer: true }) ?? 0;
    const wanted = wantedOf(args);
    const folder = writableFolder('DIR', args.positionals[0]);
    const cases = Array.from({ length: count }, (_, index) => {
      const call = callOf(seed, index, wanted, args.flag('grad'));
      const name = `case-${String(index).padStart(String(count - 1).length, '0')}`;
      writeOutput('DIR', join(folder, `${name}.safetensors`), caseFile(name, call));
      const { config, x, weights } = call;
      const sizes = { numTokens: x.rows, numExperts: config.numExperts, dModel: x.cols, dFf: weights.up[0].rows };
      return { name, router: config.router, activation: config.activation, ...sizes };
    });
    const manifest = JSON.stringify({ format: 'xmoe-vectors/1', seed, cases }, undefined, 1);
    writeOutput('DIR', join(folder, 'manifest.json'), new TextEncoder().encode(`${manifest}\n`));
    process.stdout.write(`${count} cases in ${folder}\n`);
    return 0;
  },
};
