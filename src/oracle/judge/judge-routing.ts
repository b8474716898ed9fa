/** Logits on x and Wr; probabilities on the implementation's own logits. */
import { zeros } from '../../matrix.js';
import { softmax } from '../../router.js';
import { numColumns } from '../../selection/routers.js';
import { type Approximate, exactly, given, linearApprox } from '../bounds/approximate.js';
import { withoutErrorWhereExact, withoutErrorWhereLevel } from '../bounds/exactness.js';
import { softmaxApprox } from '../bounds/functions.js';
import type { StageVerdicts } from '../types.js';
import type { Compared } from './choices.js';
import { byToken } from './difference.js';
import { type Judge, judgeFloats, usable } from './judge.js';
import { asMatrix } from './observe.js';

export interface JudgedRouting {
  readonly verdicts: readonly StageVerdicts[];
  /** What the decisions are judged on: the implementation's own numbers, or the reference's with their bounds. */
  readonly compared: Compared;
  /** What a second evaluation of the softmax may be off by: probabilities that a backward or a fused kernel made anew. */
  readonly softmaxOfOwn: Approximate;
}

export function judgeRouting(judge: Judge): JudgedRouting {
  const { call, router, arithmetic } = judge;
  if (call.config.router === 'hash') {
    const none = exactly(zeros(call.x.rows, 0));
    return { verdicts: [], compared: { logits: none, probs: none }, softmaxOfOwn: none };
  }
  const places = byToken(numColumns(call.config), 'expert');
  const format = arithmetic.router;
  const sums = linearApprox(given(call.x, router), call.weights.router, undefined, router);
  const referenceLogits = withoutErrorWhereExact(sums, call.x, call.weights.router);
  const likely = () => linearApprox(given(call.x, router), call.weights.router, undefined, judge.likely!.router);
  const onLogits = judgeFloats(judge, 'logits', 'logits', () => referenceLogits, format, places, likely);
  const ownLogits = usable(judge, 'logits');
  const logits = ownLogits ? exactly(asMatrix(ownLogits)) : referenceLogits;

  const referenceProbs = softmaxApprox(logits, softmax(logits.value), router);
  const onProbs = judgeFloats(judge, 'probs', 'probs', () => referenceProbs, format, places);
  const ownProbs = usable(judge, 'probs');
  const probs = ownProbs ? exactly(asMatrix(ownProbs)) : withoutErrorWhereLevel(referenceProbs, logits);
  return { verdicts: [onLogits, onProbs], compared: { logits, probs }, softmaxOfOwn: referenceProbs };
}
