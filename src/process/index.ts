/**
 * A program that speaks the protocol of spec/PROTOCOL.md, as an implementation: one layer case in, one trace out. Needs
 * Node, Deno or Bun; elsewhere it can be imported, and a call says so.
 */
import { exactDtype, type NamedTensors, readOutputs, writeLayerCase } from '../layer-case/index.js';
import type { Arithmetic, Implementation, LayerCall } from '../oracle/index.js';
import { arithmeticNamed } from '../oracle/index.js';
import { ImplementationError } from '../oracle/search/implementation-error.js';
import { quote } from '../safetensors/json.js';
import { ForeignProcess, type ProcessLimits } from './foreign-process.js';

export interface ProcessOptions extends Partial<ProcessLimits> {
  /** What it computes in. Default `f32`. */
  readonly arithmetic?: Arithmetic;
}

const DEFAULT_LIMITS: ProcessLimits = { seconds: 60, memoryBytes: 8 * 2 ** 30 };

/** The least that a program has for an answer after it hung. */
const SHORT_SECONDS = 5;

/**
 * The program is started, and started again by the first call after each failure.
 *
 * @param command the program and its arguments
 * @throws TypeError if there is no such program, or the runtime starts none
 */
export async function processImplementation(
  command: readonly string[],
  options: ProcessOptions = {},
): Promise<Implementation> {
  const { arithmetic = arithmeticNamed('f32'), ...limits } = options;
  const start = () => ForeignProcess.start(command, { ...DEFAULT_LIMITS, ...limits });
  const limit = limits.seconds ?? DEFAULT_LIMITS.seconds;
  let [slowest, patience] = [0, limit];
  let running: ForeignProcess | undefined = await start();
  const close = async () => {
    await running?.close();
    running = undefined;
  };
  return {
    name: command.join(' '),
    arithmetic,
    async run(call) {
      running ??= await start();
      const asked = performance.now();
      try {
        const answer = await running.ask(questionOf(call), maxAnswerBytes(call), patience);
        slowest = Math.max(slowest, (performance.now() - asked) / 1000);
        const { outputs, refused } = answerOf(answer);
        if (refused === undefined) return outputs;
        throw new ImplementationError('refused', quote(refused));
      } catch (error) {
        const { kind } = error as ImplementationError;
        // what hung once is put again to be cut down, and need not be waited for as long
        if (kind === 'hung') patience = Math.min(limit, Math.max(SHORT_SECONDS, 10 * slowest));
        if (kind !== 'refused') await close();
        throw error;
      }
    },
    close,
  };
}

/** Every default is spelled out: a client need not know them. */
function questionOf(call: LayerCall): Uint8Array {
  const config = { minCapacity: 4, skipExpert: false, auxLossCoef: 0, ...call.config };
  return writeLayerCase({ name: '', recorded: new Map(), dropOrderOpen: false, ...call, config }, exactDtype(call));
}

/** All outputs of this call in float64, twice, and room for names. */
function maxAnswerBytes({ x, weights, config, gradY }: LayerCall): number {
  const pairs = x.rows * (config.numExperts + 1);
  const numWeights = [weights.router, ...weights.up, ...weights.down, ...(weights.gate ?? [])].reduce(
    (total, { data }) => total + data.length,
    weights.up.length * (2 * weights.up[0].rows + x.cols),
  );
  const numGradients = gradY ? x.data.length + numWeights : 0;
  return 2 ** 20 + 16 * (5 * pairs + pairs * x.cols + x.data.length + numGradients);
}

function answerOf(bytes: Uint8Array): { outputs: NamedTensors; refused: string | undefined } {
  try {
    const { outputs, metadata } = readOutputs(bytes);
    return { outputs, refused: metadata.get('refused') };
  } catch (error) {
    throw new ImplementationError(
      'wrote rubbish',
      `the process answered what is no trace: ${(error as Error).message}`,
    );
  }
}
