/** Kernels that V8 compiles for 256 bits: switched on, checked, timed, and the flag taken back. */
import { isNode, nodeProcess, setV8Flag } from '../node.js';
import { numDifferences, outputsOf, workload } from './exercise.js';
import type { ExpertFormat } from './formats.js';
import { narrowSet, wideSet, withInt8Dot } from './kernel-set.js';
import { compileKernels, type KernelModule, type Target } from './kernels.js';
import { heat, isFaster } from './probe.js';

/** The environment variable that forbids it: set to anything but 0. */
const KILL_SWITCH = 'XMOE_NO_REVECTORIZE';
/** V8's since Node 24: before, the flag did nothing. */
const FIRST_NODE = 24;

/** How long kernels may take to become faster. */
const PATIENCE_MS = 2000;
/** What V8 began to compile while the flag was set has ended by then. */
const SETTLE_MS = 100;

/** By target, kind of memory and format: the decision is made once in a process. */
const decided = new Map<string, Promise<KernelModule | string>>();
let last: Promise<unknown> = Promise.resolve();

/**
 * The kernels of the wide set, compiled with V8's `--experimental-wasm-revectorize` and found to give the same bits as
 * without, in less time than the narrow set; or the reason why not.
 *
 * Reach   while this decides, some tenths of a second, the flag is set for the whole process: other WebAssembly that V8 optimises
 *         meanwhile is compiled with it too, in every thread. Then it is taken back, and the compiled kernels stay
 */
export function revectorizedKernels(
  target: Target,
  isShared: boolean,
  experts: ExpertFormat,
): Promise<KernelModule | string> {
  const reason = whyNot();
  if (reason !== undefined) return Promise.resolve(reason);
  const key = `${target} ${isShared} ${experts}`;
  const known = decided.get(key);
  if (known) return known;
  const decision = last.then(() => decide(target, isShared, experts)); // one after another: there is one flag
  decided.set(key, decision);
  last = decision.catch(() => {});
  return decision;
}

function whyNot(): string | undefined {
  const process = nodeProcess();
  if (!process || !isNode()) return 'only Node can set the flag of V8 that it needs';
  const killed = process.env[KILL_SWITCH];
  if (killed !== undefined && killed !== '0') return `the environment variable ${KILL_SWITCH} is set`;
  if (process.arch !== 'x64' || process.platform === 'darwin') {
    return `V8 has it on x64 alone, and not on macOS; this is ${process.arch}, ${process.platform}`;
  }
  const { node } = process.versions!;
  return Number.parseInt(node!, 10) < FIRST_NODE ? `Node ${FIRST_NODE} and later have it; this is ${node}` : undefined;
}

async function decide(target: Target, isShared: boolean, experts: ExpertFormat): Promise<KernelModule | string> {
  const narrow = await compileKernels(target, isShared, narrowSet());
  const expected = outputsOf({ ...narrow, set: wideSet }, experts); // before the flag is set
  const narrowRound = workload(narrow, experts);
  await heat(narrowRound);

  const wide = await withFlag(async () => {
    const compiled = await compileKernels(target, isShared, wideSet, `xmoe.revectorize ${experts}`);
    if (!(await becomesFaster(workload(compiled, experts), narrowRound))) return undefined;
    return experts === 'int8' ? withInt8Dot(compiled) : compiled;
  });
  if (!wide) return 'the kernels for it were not faster here';
  await heat(workload(wide, experts), SETTLE_MS);
  const numWrong = numDifferences(outputsOf(wide, experts), expected);
  return numWrong === 0 ? wide : `it changed ${numWrong} of the numbers that it was checked with`;
}

async function withFlag<Result>(compile: () => Promise<Result>): Promise<Result> {
  await setV8Flag('--experimental-wasm-revectorize');
  try {
    return await compile();
  } finally {
    await setV8Flag('--no-experimental-wasm-revectorize');
  }
}

/** Gives V8 time to optimise the wide kernels, until they are faster than the narrow ones. */
async function becomesFaster(wide: () => void, narrow: () => void): Promise<boolean> {
  const end = performance.now() + PATIENCE_MS;
  do {
    await heat(wide);
    if (isFaster(wide, narrow)) return true;
  } while (performance.now() < end);
  return false;
}
