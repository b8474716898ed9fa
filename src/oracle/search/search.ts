/** Many random calls put to an implementation; the first that fails is shrunk. */
import { drawRecipe, layerOf, type WantedRecipes } from '../../cases/index.js';
import type { Conformance, Finding, Implementation, LayerCall } from '../types.js';
import type { Behaviour } from './behaviour.js';
import { examine } from './examine.js';
import { type ShrinkLimits, shrink } from './shrink.js';
import { Tally } from './tally.js';

export interface SearchOptions {
  /** 32 bits. Default 0. */
  readonly seed?: number;
  /** Cases of the whole search; a shard takes its part. Default 2000. */
  readonly runs?: number;
  /** This is shard `index` of `count`, from 1: it takes the cases whose number is `index` − 1 modulo `count`. */
  readonly shard?: { readonly index: number; readonly count: number };
  readonly wanted?: WantedRecipes;
  /** Ask for gradients too. Default false. */
  readonly gradients?: boolean;
  readonly shrinkLimits?: Partial<ShrinkLimits>;
  /** Called before each case, and while a failing one is shrunk. */
  readonly onProgress?: (progress: Progress) => void;
  /** An AbortSignal: ends the search; a case that is running then does not count. */
  readonly signal?: { readonly aborted: boolean };
}

export interface Progress {
  /** Cases done, of this shard. */
  readonly done: number;
  readonly total: number;
  readonly shrinking: boolean;
}

export interface Failure {
  /** The number of the case: `drawRecipe(seed, index)` is its recipe. */
  readonly index: number;
  readonly call: LayerCall;
  readonly conformance: Conformance;
  /** Whether the call shows the fault when it is put again; if not, it depends on what was asked before, or on chance. */
  readonly repeats: boolean;
  /** The smallest call found that shows the same fault, and the verdict on it. */
  readonly smallest: { readonly call: LayerCall; readonly conformance: Conformance };
}

export interface SearchReport {
  readonly tally: Tally;
  readonly interrupted: boolean;
  readonly failure?: Failure;
}

const SHRINK_LIMITS: ShrinkLimits = { runs: 3000, ms: 30_000 };

/** Of what gave no answer: each try starts it again, and any call is likely to show it. */
const SHRINK_MS_WITHOUT_ANSWER = 10_000;

/** How long the loop of events may wait for us: for Ctrl-C, and for a page to draw. */
const PATIENCE_MS = 50;

/**
 * Search until a case fails, or all conform, or the signal comes.
 * Every case is judged; three in eight are also asked twice, two in parts, one after a call that overflows.
 */
export async function search(implementation: Implementation, options: SearchOptions = {}): Promise<SearchReport> {
  const { seed = 0, shard = { index: 1, count: 1 }, signal, gradients = false, wanted = {} } = options;
  const tally = new Tally();
  const indices = indicesOf(options.runs ?? 2000, shard);
  const progress = (done: number, shrinking: boolean) =>
    options.onProgress?.({ done, total: indices.length, shrinking });
  const isAborted = () => signal?.aborted === true;
  let rested = performance.now();
  for (const [done, index] of indices.entries()) {
    if (performance.now() - rested > PATIENCE_MS) {
      await new Promise(resolve => setTimeout(resolve));
      rested = performance.now();
    }
    if (isAborted()) break;
    progress(done, false);
    const call = callOf(seed, index, wanted, gradients);
    const conformance = await examine(implementation, call, { behaviours: behavioursOf(index) });
    if (isAborted()) break; // whoever ended the search may have ended the answer too
    tally.add(conformance);
    if (conformance.verdict === 'conforms') continue;
    progress(done, true);
    const answered = conformance.stages.length > 0;
    const ofFault = answered ? {} : { ms: SHRINK_MS_WITHOUT_ANSWER };
    const limits = { ...SHRINK_LIMITS, ...ofFault, ...(signal && { signal }), ...options.shrinkLimits };
    const failure = await shrunk(implementation, { index, call, conformance }, limits);
    return { tally, interrupted: isAborted(), failure };
  }
  return { tally, interrupted: isAborted() };
}

/** Case `index` of a search. */
export function callOf(seed: number, index: number, wanted: WantedRecipes, gradients: boolean): LayerCall {
  const { gradY, ...call } = layerOf(drawRecipe(seed, index, wanted));
  return gradients ? { ...call, gradY } : call;
}

function indicesOf(runs: number, { index, count }: { index: number; count: number }): number[] {
  const total = Math.max(0, Math.ceil((runs - (index - 1)) / count));
  return Array.from({ length: total }, (_, i) => i * count + index - 1);
}

/** By the high digits too, so that each of a few shards has some of each. */
function behavioursOf(index: number): Behaviour[] {
  const place = (index + Math.floor(index / 8)) % 8;
  if (place % 4 === 1) return ['repeat'];
  if (place % 4 === 2) return ['batch'];
  return place === 3 ? ['repeat', 'poison'] : [];
}

async function shrunk(
  implementation: Implementation,
  failure: Pick<Failure, 'index' | 'call' | 'conformance'>,
  limits: ShrinkLimits,
): Promise<Failure> {
  const behaviours = behavioursShowing(failure.conformance, failure.index);
  let last = failure.conformance;
  const shows = async (call: LayerCall) => {
    const conformance = await examine(implementation, call, { behaviours });
    if (faultOf(conformance) !== faultOf(failure.conformance)) return false;
    last = conformance;
    return true;
  };
  const repeats = await shows(failure.call);
  const call = repeats ? await shrink(failure.call, shows, limits) : failure.call;
  return { ...failure, repeats, smallest: { call, conformance: last } };
}

/** What is wrong, in a word: the stage to blame, else the kind of the finding. Two calls with the same show the same fault. */
export function faultOf({ verdict, blamed, findings }: Conformance): string | undefined {
  if (verdict === 'conforms') return undefined;
  return blamed ?? findings.find(({ severity }) => severity === 'fault')?.kind;
}

/** Those that must be looked at again for the fault to show: none where the answer itself was wrong. */
function behavioursShowing({ stages, findings }: Conformance, index: number): Behaviour[] {
  const answered = stages.length > 0 && stages.every(({ verdict }) => verdict !== 'disagree');
  const isOfAnswer = findings.some(({ kind, severity }) => severity === 'fault' && OF_ANSWER.includes(kind));
  return answered && !isOfAnswer ? behavioursOf(index) : [];
}

const OF_ANSWER: readonly Finding['kind'][] = [
  'non-finite',
  'wrong shape',
  'duplicate expert',
  'out of range',
  'input modified',
];
