/** `xmoe check`: is this implementation right, and if not, where. */
import { readLayerCase } from '../layer-case/index.js';
import { arithmeticNamed, examine, type Implementation, type LayerCall, Tally } from '../oracle/index.js';
import { type Arguments, parseArguments, readInput, writeOutput } from './arguments.js';
import { judgeFolder } from './check-files.js';
import { jsonOf } from './check-json.js';
import { type CheckReport, printed, verdictOf } from './check-report.js';
import type { Command } from './command.js';
import { hunt } from './hunt.js';
import {
  arithmeticOf,
  implementationFor,
  implementationHelp,
  implementationOptions,
  splitCommand,
} from './implementation.js';
import { wantedHelp, wantedOptions } from './wanted.js';

const help = `xmoe check --backend X [--runs N] [--seed S] [--router R,…] [--shard i/n] [--grad] [--json FILE]
xmoe check [OPTIONS] -- COMMAND …
xmoe check --backend X --replay CASE.safetensors
xmoe check --files DIR [--arithmetic A]

Puts N random layer calls to an implementation and judges every stage of what it answers, each on the answer's own
inputs to it, by bounds computed for its arithmetic (spec/VERDICTS.md). The first call that fails is cut down to a small
one and saved, and the line that replays it is printed.

${implementationHelp}
  --runs N         calls, over all shards (default 2000)
  --seed S         which calls: the same seed asks the same on every machine (default 0)
${wantedHelp}
  --shard i/n      the i-th of n parts, from 1: disjoint, and together the whole
  --grad           gradients too
  --save DIR       where a failing call is saved (default: here)
  --replay FILE    put the one call of this layer case instead of random ones
  --files DIR      judge what somebody computed for the cases of xmoe vectors: DIR/NAME.out.safetensors
  --json FILE      write the report as JSON too

Exit status: 0 conforms, 1 does not, 2 bad usage or nothing was judged, 130 interrupted with no fault so far.
`;

export const checkCommand: Command = {
  summary: 'is an implementation right, and if not, which stage, on the smallest case',
  help,
  async run(argv) {
    const { own, command } = splitCommand(argv);
    const args = parseArguments(own, [], {
      ...implementationOptions,
      ...wantedOptions,
      ...{ runs: { type: 'string' }, seed: { type: 'string' }, shard: { type: 'string' } },
      ...{ grad: { type: 'boolean' }, save: { type: 'string' }, replay: { type: 'string' }, files: { type: 'string' } },
      json: { type: 'string' },
    });
    const files = args.text('files');
    const replay = args.text('replay');
    const asked = [...command, args.text('backend') ?? replay ?? ''].join(' ').trim();
    if (files !== undefined && asked !== '') {
      throw new TypeError(`"--files" expected nothing to ask beside it, got ${asked}`);
    }
    const report =
      files === undefined
        ? await withImplementation(args, command, implementation =>
            replay === undefined ? hunt(implementation, args, argv) : replayed(implementation, replay, args),
          )
        : await judgeFolder(files, arithmeticOf(args) ?? arithmeticNamed('f32'));
    process.stdout.write(`${printed(report)}\n`);
    const json = args.text('json');
    if (json !== undefined) writeOutput('--json', json, new TextEncoder().encode(`${jsonOf(report)}\n`));
    return statusOf(report);
  },
};

function statusOf(report: CheckReport): number {
  const verdict = verdictOf(report);
  if (verdict === 'does not conform') return 1;
  if (report.interrupted) return 130;
  return verdict === 'conforms' ? 0 : 2;
}

async function withImplementation(
  args: Arguments,
  command: readonly string[],
  use: (implementation: Implementation) => Promise<CheckReport>,
): Promise<CheckReport> {
  const implementation = await implementationFor(args, command);
  try {
    return await use(implementation);
  } finally {
    await implementation.close?.();
  }
}

/** The one call of a file; gradients where `--grad` asks for them and the file has their cotangent. */
async function replayed(implementation: Implementation, path: string, args: Arguments): Promise<CheckReport> {
  const started = performance.now();
  const { gradY, ...rest } = readLayerCase(readInput('--replay', path));
  const call: LayerCall = args.flag('grad') && gradY ? { ...rest, gradY } : rest;
  const conformance = await examine(implementation, call);
  const tally = new Tally();
  tally.add(conformance);
  const { name, arithmetic } = implementation;
  const seconds = (performance.now() - started) / 1000;
  return {
    name,
    arithmetic,
    what: 'replay',
    seconds,
    tally,
    interrupted: false,
    shown: { name: path, call, conformance },
  };
}
