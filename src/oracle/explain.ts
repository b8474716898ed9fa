/** Why y is wrong, when nobody saw what the experts said: which change of the layer would give this y. */
import { numColumns } from '../selection/routers.js';
import type { Matrix } from '../types.js';
import type { Approximate } from './approximate.js';
import { fitWeights } from './fit.js';
import type { Judge } from './judge.js';
import { type Expected, type Explanation, suspicions } from './suspicions.js';

/**
 * Try known faults one by one: the first that gives y within its bounds is named. Else see whether other weights of the
 * right experts give y: then the weights are wrong, and else the experts.
 */
export function explainY(judge: Judge, y: Matrix, expected: Expected): Explanation {
  const wrong = wrongTokens(y, expected.y);
  for (const { stage, name, give } of suspicions(judge, expected)) {
    if (isGivenBy(give(), y, wrong)) return { stage, detail: `as if: ${name}` };
  }
  const fits = wrong
    .map(t => fitWeights(t, y, expected.forward, expected.kept, judge))
    .filter(fit => fit !== undefined);
  if (fits.length === 0) return { stage: 'experts', detail: 'experts or combine: expert_out would tell' };
  if (!fits.every(({ fits }) => fits))
    return { stage: 'experts', detail: 'no weights of the right experts give this y' };
  const [{ experts, weights }] = fits;
  const [token] = wrong;
  const shown = experts.slice(0, 4).map((e, k) => {
    const wanted = expected.weights.value.data[token * numColumns(judge.call.config) + e];
    return `${weights[k].toPrecision(4)} for ${wanted.toPrecision(4)}`;
  });
  const detail =
    experts.length === 0
      ? 'a token without experts must give 0'
      : `the right experts with other weights: ${shown.join(', ')}`;
  return { stage: 'combine', detail: `${detail} (token ${token})` };
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
