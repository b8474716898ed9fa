/** `xmoe eval`: how well a model predicts a text, and what its experts cost. */
import type { Evaluation } from '../model/index.js';
import { parseArguments, readInput } from './arguments.js';
import type { Command } from './command.js';
import { modelHelp, modelOptions, progressBar, thresholdName, thresholdOf, withModel } from './model.js';

const help = `xmoe eval MODEL TEXT [--threshold τ] [--backend NAME] [--threads N] [--max-tokens N] [--json]

Predicts a text byte by byte, in windows of the model's context that know nothing of each other, and prints bits per
byte (mean −log2 p), perplexity (2^bits, of a byte), the mean number of experts that kept a token in each XMoE layer, and
the FLOPs of those layers, routers included, as a share of the dense FFN's that they replace.

${modelHelp}
  --max-tokens N   predict only the first N bytes
  --json           one JSON object instead of the table

Exit status: 0 done, 2 bad usage or input.
`;

export const evalCommand: Command = {
  summary: 'bits per byte, experts per token and FLOPs of a model on a text',
  help,
  async run(argv) {
    const args = parseArguments(argv, ['MODEL', 'TEXT'], {
      ...modelOptions,
      'max-tokens': { type: 'string' },
      json: { type: 'boolean' },
    });
    const maxTokens = args.number('max-tokens', { min: 0, integer: true });
    const [modelPath, textPath] = args.positionals;
    const routing = thresholdOf(args);
    return withModel(modelPath, args, async model => {
      const text = readInput('TEXT', textPath);
      const total = Math.min(text.length - 1, maxTokens ?? text.length);
      const settings = { threshold: thresholdName(model.config, routing.threshold), backend: model.backend };
      const progress = progressBar(`τ ${settings.threshold}`);
      const started = performance.now();
      const evaluation = await model.evaluate(text, {
        ...routing,
        ...(maxTokens !== undefined && { maxTokens }),
        onWindow: ({ start, tokens }) => progress((start + tokens.length) / total),
      });
      const seconds = (performance.now() - started) / 1000;
      const report = args.flag('json')
        ? JSON.stringify({ model: modelPath, text: textPath, ...settings, ...evaluation, seconds })
        : table(evaluation, model.config.moeLayers, settings, seconds);
      process.stdout.write(`${report}\n`);
      return 0;
    });
  },
};

function table(
  { numPredicted, bitsPerByte, perplexity, expertsPerToken, flopsShare }: Evaluation,
  moeLayers: readonly number[],
  { threshold, backend }: { threshold: string; backend: string },
  seconds: number,
): string {
  const experts = expertsPerToken.map((count, i) => `layer ${moeLayers[i]}: ${count.toFixed(3)}`);
  return [
    `threshold          ${threshold}`,
    `bits per byte      ${bitsPerByte.toFixed(4)}`,
    `perplexity         ${perplexity.toFixed(4)} (of a byte)`,
    `experts per token  ${experts.join(', ') || 'no XMoE layer'}`,
    `MoE FLOPs          ${(100 * flopsShare).toFixed(1)} % of the dense FFN's`,
    `${numPredicted} bytes predicted in ${seconds.toFixed(1)} s by ${backend}`,
  ].join('\n');
}
