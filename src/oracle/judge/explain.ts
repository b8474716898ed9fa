/** Why y is wrong, when nobody saw what the experts said: which change of the layer would give this y. */
import { numColumns } from '../../selection/routers.js';
import type { Matrix } from '../../types.js';
import type { Approximate } from '../bounds/approximate.js';
import { IN } from './choices.js';
import { fitWeights } from './fit.js';
import type { Judge } from './judge.js';
import { type Expected, type Explanation, suspicions } from './suspicions.js';

/**
 * Try known faults one by one: the first that gives y within its bounds is named. Else see whether other weights of the
 * right experts give y: then the weights are wrong, and else the experts.
 */
export function explainY(judge: Judge, y: Matrix, expected: Expected): Explanation {
  const wrong = wrongTokens(y, expected.y);
  const seen = bySight(y, expected, wrong);
  if (seen) return { stage: 'combine', detail: seen };
  for (const { stage, name, give } of suspicions(judge, expected, y)) {
    if (isGivenBy(give(), y, wrong)) return { stage, detail: `as if: ${name}` };
  }
  return byFit(judge, y, expected, wrong);
}

/** What the numbers of y show by themselves. */
function bySight(y: Matrix, expected: Expected, wrong: readonly number[]): string | undefined {
  const { rows, cols } = y;
  const numExperts = expected.kept.length / rows;
  const hasExperts = (t: number) => expected.kept.subarray(t * numExperts, (t + 1) * numExperts).includes(IN);
  const empty = wrong.find(t => !hasExperts(t));
  if (empty !== undefined) return `token ${empty} keeps no expert, and must give 0`;

  const others = wrong.map(t => Array.from({ length: rows }, (_, s) => s).find(s => s !== t && isRowOf(t, s)));
  if (others.every(s => s !== undefined)) return `the sums of other tokens: token ${wrong[0]} has that of ${others[0]}`;

  const unwritten = new Set<number>();
  for (const t of wrong) for (let c = 0; c < cols; c++) if (!isRight(t, c)) unwritten.add(c);
  const areZero = wrong.every(t => [...unwritten].every(c => y.data[t * cols + c] === 0));
  const hasOthers = (t: number) => Array.from({ length: cols }, (_, c) => c).some(c => y.data[t * cols + c] !== 0);
  if (areZero && wrong.every(hasOthers))
    return `columns ${[...unwritten].slice(0, 8).join(', ')} of y are 0: not written`;
  return undefined;

  function isRight(t: number, c: number, row = t): boolean {
    const at = row * cols + c;
    return Math.abs(y.data[t * cols + c] - expected.y.value.data[at]) <= expected.y.error[at];
  }

  function isRowOf(t: number, s: number): boolean {
    for (let c = 0; c < cols; c++) if (!isRight(t, c, s)) return false;
    return hasExperts(s);
  }
}

/** So many equations more than unknowns must agree before other weights are believed. */
const ENOUGH_EQUATIONS = 4;

function byFit(judge: Judge, y: Matrix, { forward, kept, weights }: Expected, wrong: readonly number[]): Explanation {
  const fits = wrong.map(t => fitWeights(t, y, forward, kept, judge)).filter(fit => fit !== undefined);
  const untold: Explanation = { stage: 'experts', detail: 'experts or combine: expert_out would tell' };
  const allFinite = y.data.every((v: number) => Number.isFinite(v));
  if (!allFinite) return { ...untold, stage: 'combine' };
  const numSpare = fits.reduce((sum, { experts }) => sum + y.cols - experts.length, 0);
  const isTold = (...names: string[]) => names.some(name => judge.observation.tensors.has(name));
  if (fits.some(({ fits }) => !fits)) {
    const or = isTold('selected', 'kept') ? '' : 'experts or decisions: selected and kept would tell; ';
    return { stage: 'experts', detail: `${or}no weights of the right experts give this y` };
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
    };
  }
  const shown = experts.slice(0, 4).map((e, k) => `${own[k].toPrecision(4)} for ${wanted(token, e).toPrecision(4)}`);
  const or = isTold('probs', 'combine') ? '' : 'router or combine: probs would tell; ';
  return {
    stage: 'combine',
    detail: `${or}the right experts with other weights: ${shown.join(', ')} (token ${token})`,
  };
}

function isGivenBy({ value, error }: Approximate, y: Matrix, tokens: readonly number[]): boolean {
  return tokens.every(t => {
    for (let at = t * y.cols; at < (t + 1) * y.cols; at++) {
      if (!(Math.abs(y.data[at] - value.data[at]) <= error[at])) return false;
    }
    return true;
  });
}

/** Tokens of which a value is off by more than its bound, or not finite. */
function wrongTokens(y: Matrix, { value, error }: Approximate): number[] {
  return Array.from({ length: y.rows }, (_, t) => t).filter(t => {
    for (let at = t * y.cols; at < (t + 1) * y.cols; at++) {
      if (error[at] < Number.POSITIVE_INFINITY && !(Math.abs(y.data[at] - value.data[at]) <= error[at])) return true;
    }
    return false;
  });
}
