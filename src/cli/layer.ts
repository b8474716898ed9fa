/** `xmoe layer`: run one layer case, compare it with what was recorded, write what came out. */
import { type LayerCase, readLayerCase, writeOutputs } from '../layer-case/index.js';
import { type Margin, marginsOf } from '../margins.js';
import { type Arithmetic, arithmeticNamed, conform, describe, type OutputReport, runCase } from '../oracle/index.js';
import type { Trace } from '../types.js';
import { parseArguments, readInput, writeOutput } from './arguments.js';
import { backendHelp, backendOptions, withBackend } from './backends.js';
import type { Command } from './command.js';
import { arithmeticOf } from './implementation.js';

const help = `xmoe layer CASE.safetensors [--backend NAME] [--threads N] [--arithmetic A] [--grad] [--out FILE]

Runs one layer call from a file (format: spec/SEMANTICS.md, "Layer-case files"). Where the file has recorded outputs
(out.*), compares each stage with them: the error where it is worst against what is allowed, and a verdict. Where the
semantics allow another decision than the recorded one, the later stages are judged on the recorded decisions. Where they
disagree, the recorded outputs are judged by themselves too, each stage on what was recorded of the stages before it.

${backendHelp('runs the layer')}
  --arithmetic A   of the recorded outputs: f64 (default) | f32 | tf32 | f16 | bf16 | int8, by which they may differ
  --grad           gradients too, of Σ(y ⊙ grad.y) + α·l_aux; the file must have grad.y
  --out FILE       write the backend's own outputs as safetensors, whatever the verdict: logits, probs, combine, y,
                   load_balancing_loss, selected, kept; with --grad also loss and grad.*

Exit status: 0 agree, or nothing recorded; 1 disagree; 2 bad usage or input.
`;

export const layerCommand: Command = {
  summary: 'run one layer case and compare it with its recorded outputs',
  help,
  async run(argv) {
    const args = parseArguments(argv, ['CASE.safetensors'], {
      ...backendOptions,
      arithmetic: { type: 'string' },
      grad: { type: 'boolean' },
      out: { type: 'string' },
    });
    const withGradients = args.flag('grad');
    const layerCase = readLayerCase(readInput('CASE', args.positionals[0]));
    const arithmetic = arithmeticOf(args) ?? arithmeticNamed('f64');
    return withBackend(args, backend => {
      const { trace, outputs, reports } = runCase(backend, layerCase, withGradients, arithmetic);
      const isWrong = reports.some(({ verdict }) => verdict === 'disagree');
      const out = args.text('out');
      if (out !== undefined) {
        const metadata = new Map([
          ['backend', backend.name],
          ['name', layerCase.name],
        ]);
        writeOutput('--out', out, writeOutputs(outputs, backend.precision === 'f64' ? 'F64' : 'F32', metadata));
      }
      const lines = [
        ...summary(layerCase, trace),
        '',
        ...compared(reports, layerCase, withGradients || !backend.backward),
        ...(isWrong ? ['', ...judgedAlone(layerCase, arithmetic)] : []),
      ];
      process.stdout.write(`${lines.join('\n')}\n`);
      return isWrong ? 1 : 0;
    });
  },
};

function summary({ name, config, x, weights, inputs }: LayerCase, trace: Trace): string[] {
  const { statistics, cost, plan } = trace;
  const sizes = `T ${x.rows}, E ${config.numExperts}, d ${x.cols}, m ${weights.up[0].rows}`;
  const dropped = `${(100 * statistics.tokensWithDrop).toFixed(1)} % of tokens lost one`;
  return [
    `${name || 'layer case'}: router ${config.router}, ${config.activation}, ${sizes}; backend ${trace.backend}`,
    `experts per token: ${statistics.selectedPerToken.toFixed(3)} selected, ${statistics.keptPerToken.toFixed(3)} kept; ${dropped}`,
    `load-balancing loss ${trace.loadBalancingLoss.toPrecision(6)}; ${cost.total.toLocaleString('en')} FLOPs`,
    `smallest margins: ${smallest(marginsOf(trace.routing, plan, config, inputs)).join('; ') || 'none'}`,
  ];
}

function judgedAlone(layerCase: LayerCase, arithmetic: Arithmetic): string[] {
  const conformance = conform(layerCase.recorded, layerCase, arithmetic);
  return [`the recorded outputs by themselves, in ${arithmetic.name}:`, describe(conformance)];
}

/** The decision of each kind that was nearest to going the other way. */
function smallest(margins: readonly Margin[]): string[] {
  return (['threshold', 'order', 'capacity'] as const).flatMap(kind => {
    const [nearest] = margins.filter(margin => margin.kind === kind).sort((a, b) => a.value - b.value);
    if (!nearest) return [];
    const { value, token, rank, expert } = nearest;
    return [`${kind} ${value.toExponential(2)} (token ${token}, rank ${rank}, expert ${expert})`];
  });
}

function compared(reports: readonly OutputReport[], { recorded }: LayerCase, allGradients: boolean): string[] {
  if (reports.length === 0) return ['nothing recorded to compare with'];
  const width = Math.max(...reports.map(({ stage }) => stage.length));
  const lines = reports.map(({ stage, verdict, error, allowed, detail }) => {
    const isDecision = stage === 'selected' || stage === 'kept';
    const figures = isDecision ? `${error} pairs differ` : `${error.toExponential(2)} of ${allowed.toExponential(2)}`;
    return `  ${stage.padEnd(width)}  ${figures.padEnd(22)}  ${verdict}${verdict === 'agree' ? '' : `: ${detail}`}`;
  });
  const wrong = reports.filter(({ verdict }) => verdict === 'disagree').map(({ stage }) => stage);
  const leftOut = !allGradients && [...recorded.keys()].some(stage => stage.startsWith('grad.'));
  return [
    `  ${'stage'.padEnd(width)}  worst error, allowed    verdict`,
    ...lines,
    '',
    wrong.length === 0 ? `agree: ${reports.length} stages` : `disagree: ${wrong.join(', ')}`,
    ...(leftOut ? ['the recorded gradients were left out: --grad compares them'] : []),
  ];
}
