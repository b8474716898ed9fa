/** Why y is wrong, when nobody saw what the experts said: which change of the layer would give this y. */
import { numColumns } from '../../selection/routers.js';
import { isReal } from '../../selection/selection.js';
import type { Matrix } from '../../types.js';
import { type Approximate, admits } from '../bounds/approximate.js';
import { IN } from './choices.js';
import { fitWeights } from './fit.js';
import type { Judge } from './judge.js';
import { otherExperts } from './sets.js';
import {
  type Expected,
  type Explanation,
  formatSuspicions,
  mayDrop,
  type Suspicion,
  stagesOfPairs,
  suspicions,
} from './suspicions.js';

/**
 * Try known faults one by one: the first that gives y within its bounds is named. Else look at the numbers themselves, for
 * sums of other experts, and at smaller formats. Else see whether other weights of the right experts give y: then the weights
 * are wrong, and else the experts.
 */
export function explainY(judge: Judge, y: Matrix, expected: Expected): Explanation {
  const wrong = wrongTokens(y, expected.y);
  const known = firstThatGives(suspicions(judge, expected), y, wrong);
  if (known) return known;
  return (
    bySight(y, expected, wrong) ??
    byOtherExperts(judge, y, expected, wrong) ??
    byEmptyToken(judge, expected, wrong) ??
    firstThatGives(formatSuspicions(judge, expected, y), y, wrong) ??
    byFit(judge, y, expected, wrong)
  );
}

function firstThatGives(list: readonly Suspicion[], y: Matrix, wrong: readonly number[]): Explanation | undefined {
  const found = list.find(({ give }) => isGivenBy(give(), y, wrong));
  return found && { stage: found.stage, detail: `as if: ${found.name}`, ...(found.isGuess && { isGuess: true }) };
}

/** Sums of other experts than the right ones, with the right weights. */
function byOtherExperts(
  judge: Judge,
  y: Matrix,
  expected: Expected,
  wrong: readonly number[],
): Explanation | undefined {
  const others = otherExperts(judge, y, expected, wrong);
  if (!others) return undefined;
  const { onSelection, onDispatch } = stagesOfPairs(judge);
  const stage = mayDrop(judge.call) && others.every(({ missing }) => missing) ? onDispatch : onSelection;
  const [{ token, experts, expected: right }] = others;
  const shown = (list: readonly number[]) => `{${list.slice(0, 8).join(', ')}${list.length > 8 ? ', …' : ''}}`;
  return {
    stage,
    detail: `token ${token} is the sum of experts ${shown(experts)}, expected ${shown(right)}`,
    isGuess: true,
  };
}

/** What the numbers of y show by themselves. */
function bySight(y: Matrix, expected: Expected, wrong: readonly number[]): Explanation | undefined {
  const { rows, cols } = y;
  const combine = (detail: string): Explanation => ({ stage: 'combine', detail });
  const others = wrong.map(t => Array.from({ length: rows }, (_, s) => s).find(s => s !== t && isRowOf(t, s)));
  if (others.every(s => s !== undefined))
    return combine(`the sums of other tokens: token ${wrong[0]} has that of ${others[0]}`);

  const unwritten = new Set<number>();
  for (const t of wrong) for (let c = 0; c < cols; c++) if (!isRight(t, c)) unwritten.add(c);
  const areZero = wrong.every(t => [...unwritten].every(c => y.data[t * cols + c] === 0));
  const hasOthers = (t: number) => Array.from({ length: cols }, (_, c) => c).some(c => y.data[t * cols + c] !== 0);
  if (areZero && wrong.every(hasOthers))
    return combine(`columns ${[...unwritten].slice(0, 8).join(', ')} of y are 0: not written`);
  return undefined;

  function isRight(t: number, c: number, row = t): boolean {
    const at = row * cols + c;
    return admits(expected.y, at, y.data[t * cols + c]);
  }

  function isRowOf(t: number, s: number): boolean {
    for (let c = 0; c < cols; c++) if (!isRight(t, c, s)) return false;
    return hasExperts(expected, s);
  }
}

/** A token without experts whose y is not 0. */
function byEmptyToken({ call }: Judge, expected: Expected, wrong: readonly number[]): Explanation | undefined {
  const empty = wrong.find(t => !hasExperts(expected, t));
  if (empty === undefined) return undefined;
  const what = isReal(call.inputs.tokenMask, empty) ? 'keeps no expert' : 'is padding';
  return { stage: 'combine', detail: `token ${empty} ${what}, and must give 0` };
}

function hasExperts({ kept, weights }: Expected, token: number): boolean {
  const { cols } = weights.value;
  return kept.subarray(token * cols, (token + 1) * cols).includes(IN);
}

/** So many equations more than unknowns must agree before other weights are believed. */
const ENOUGH_EQUATIONS = 4;

function byFit(judge: Judge, y: Matrix, { forward, kept, weights }: Expected, wrong: readonly number[]): Explanation {
  const fits = wrong.map(t => fitWeights(t, y, forward, kept, judge)).filter(fit => fit !== undefined);
  const untold: Explanation = { stage: 'experts', detail: 'experts or combine: expert_out would tell', isGuess: true };
  const allFinite = y.data.every((v: number) => Number.isFinite(v));
  if (!allFinite) return { ...untold, stage: 'combine' };
  const numSpare = fits.reduce((sum, { experts }) => sum + y.cols - experts.length, 0);
  const isTold = (...names: string[]) => names.some(name => judge.observation.tensors.has(name));
  if (fits.some(({ fits }) => !fits)) {
    const or = isTold('selected', 'kept') ? '' : 'experts or decisions: selected and kept would tell; ';
    return { stage: 'experts', detail: `${or}no weights of the right experts give this y`, isGuess: true };
  }
  if (fits.length === 0 || numSpare < ENOUGH_EQUATIONS) return untold;

  const numExperts = numColumns(judge.call.config);
  const wanted = (token: number, e: number) => weights.value.data[token * numExperts + e];
  const near = (v: number, to: number, size: number) => Math.abs(v - to) <= 1e-3 * Math.abs(size);
  const lost = fits.every(({ token, experts, weights: own }) =>
    experts.every((e, k) => near(own[k], wanted(token, e), wanted(token, e)) || near(own[k], 0, wanted(token, e))),
  );
  const [{ token, experts, weights: own }] = fits;
  if (lost) {
    const missing = experts.filter((e, k) => near(own[k], 0, wanted(token, e)));
    return {
      stage: 'experts',
      detail: `as if some experts gave 0: of token ${token} ${missing.slice(0, 8).join(', ')}`,
      isGuess: true,
    };
  }
  const shown = experts.slice(0, 4).map((e, k) => `${own[k].toPrecision(4)} for ${wanted(token, e).toPrecision(4)}`);
  const or = isTold('probs', 'combine') ? '' : 'router or combine: probs would tell; ';
  return {
    stage: 'combine',
    detail: `${or}the right experts with other weights: ${shown.join(', ')} (token ${token})`,
    isGuess: true,
  };
}

function isGivenBy(expected: Approximate, y: Matrix, tokens: readonly number[]): boolean {
  return tokens.every(t => isRowGivenBy(expected, y, t));
}

/** Tokens of which a value is off by more than its bound, or not finite. */
function wrongTokens(y: Matrix, expected: Approximate): number[] {
  return Array.from({ length: y.rows }, (_, t) => t).filter(t => !isRowGivenBy(expected, y, t));
}

function isRowGivenBy(expected: Approximate, y: Matrix, token: number): boolean {
  for (let at = token * y.cols; at < (token + 1) * y.cols; at++) if (!admits(expected, at, y.data[at])) return false;
  return true;
}
