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
      try {
        const { outputs, refused } = answerOf(await running.ask(questionOf(call), maxAnswerBytes(call)));
        if (refused === undefined) return outputs;
        throw new ImplementationError('refused', quote(refused));
      } catch (error) {
        if ((error as ImplementationError).kind !== 'refused') await close();
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
