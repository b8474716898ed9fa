/** `xmoe show`: what XMoE does to a text, at a glance. */
import type { Evaluation, ModelConfig, TokenFacts } from '../model/index.js';
import { parseArguments, readInput } from './arguments.js';
import type { Command } from './command.js';
import { type CliModel, modelHelp, modelOptions, progressBar, thresholdName, thresholdOf, withModel } from './model.js';
import { paint } from './paint.js';

const help = `xmoe show MODEL TEXT [--threshold τ] [--backend NAME] [--threads N] [--max-tokens N]

Evaluates the first N bytes of a text at three thresholds, 0.5, the model's own (or τ) and every expert: bits per byte,
experts per token, and FLOPs against the dense FFN. Then prints the passage, each token coloured by how many experts
it used; where there are no colours (a pipe, NO_COLOR) a line of figures stands under each line of text.

${modelHelp}
  --max-tokens N   bytes to read (default 1024)

Exit status: 0 done, 2 bad usage or input.
`;

export const showCommand: Command = {
  summary: 'a passage coloured by how many experts each token used',
  help,
  async run(argv) {
    const args = parseArguments(argv, ['MODEL', 'TEXT'], { ...modelOptions, 'max-tokens': { type: 'string' } });
    const maxTokens = args.number('max-tokens', { min: 1, integer: true }) ?? 1024;
    const [modelPath, textPath] = args.positionals;
    const { threshold } = thresholdOf(args);
    const text = readInput('TEXT', textPath).subarray(0, maxTokens + 1);
    return withModel(modelPath, args, async model => {
      const { config } = model;
      print(describe(config, modelPath));
      print(`${textPath}: ${Math.max(0, text.length - 1)} bytes predicted\n`);
      const counts = config.moeLayers.map(l => `experts in layer ${l}`);
      print(columns('threshold', 'bits per byte', counts, 'FLOPs of the dense FFN'));
      await evaluateRow(model, text, 0.5);
      const { evaluation, tokens } = await evaluateRow(model, text, threshold);
      const dense = (await evaluateRow(model, text, 'dense')).evaluation;
      print(`\n${summaryOf(thresholdName(config, threshold), evaluation, dense)}\n`);
      print(paint(tokens));
      return 0;
    });
  },
};

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function describe({ numLayers, moeLayers, dFf, dFfDense, layer }: ModelConfig, path: string): string {
  const experts = `${layer.numExperts} experts of width ${dFf} in place of an FFN of width ${dFfDense}`;
  return `${path}: ${numLayers} layers, ${moeLayers.length === 0 ? 'none with XMoE' : `XMoE in ${moeLayers.join(', ')}: ${experts}`}`;
}

/** Evaluates at one threshold, and prints its row of the table. */
async function evaluateRow(
  model: CliModel,
  text: Uint8Array,
  threshold: number | 'dense' | undefined,
): Promise<{ evaluation: Evaluation; tokens: TokenFacts[] }> {
  const tokens: TokenFacts[] = [];
  const name = thresholdName(model.config, threshold);
  const progress = progressBar(`τ ${name}`);
  const evaluation = await model.evaluate(text, {
    ...(threshold !== undefined && { threshold }),
    onWindow(window) {
      tokens.push(...window.tokens);
      progress(tokens.length / (text.length - 1));
    },
  });
  const { bitsPerByte, expertsPerToken, flopsShare } = evaluation;
  const experts = expertsPerToken.map(count => count.toFixed(2));
  print(columns(name, bitsPerByte.toFixed(3), experts, `${(100 * flopsShare).toFixed(1)} %`));
  return { evaluation, tokens };
}

function columns(threshold: string, bits: string, experts: readonly string[], flops: string): string {
  return [threshold.padEnd(10), bits.padEnd(14), ...experts.map(text => text.padEnd(18)), flops].join(' ');
}

function summaryOf(threshold: string, own: Evaluation, dense: Evaluation): string {
  const cheaper = dense.moeFlops / own.moeFlops;
  return (
    `At τ = ${threshold} the XMoE layers do ${cheaper.toFixed(1)} times less work than with every expert, ` +
    `at ${own.bitsPerByte.toFixed(3)} bits per byte against ${dense.bitsPerByte.toFixed(3)}.`
  );
}
