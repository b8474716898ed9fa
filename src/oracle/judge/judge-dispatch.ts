/** Dispatch on the implementation's own selection and ranks: who is kept, who is dropped. */
import { planWithinCapacity } from '../../dispatch.js';
import { row } from '../../matrix.js';
import { numColumns } from '../../selection/routers.js';
import { byRank, selectionOf } from '../../selection/selection.js';
import { noisyLogits } from '../../selection/topk.js';
import type { DispatchPlan, Routing } from '../../types.js';
import type { LayerCall, StageVerdicts } from '../types.js';
import { type Compared, EITHER, IN, OUT } from './choices.js';
import { likenessOf } from './drops.js';
import { type Judge, notJudged, verdict } from './judge.js';
import { faultsOfFlags, type JudgedSelection, ownFlags } from './judge-selection.js';
import { capacitiesOf, isBefore, isSkipped, keepable, levelsOf, priorityStep, type Wish, wishesOf } from './queues.js';
import { tokenTies } from './ties.js';

export interface JudgedDispatch {
  readonly verdict: StageVerdicts;
  /** Where no selection was given, and what was kept shows that it was wrong. */
  readonly selection?: StageVerdicts;
  /** Whether each pair is kept, as far as that is known. OUT, IN or EITHER: [T, E] */
  readonly kept: Uint8Array;
  /** The reference's, on the implementation's selection: 1 = kept. [T, E] */
  readonly expected: Uint8Array;
}

export function judgeDispatch(
  judge: Judge,
  { chosen, expected: expectedChoice, verdict: onSelection }: JudgedSelection,
  compared: Compared,
): JudgedDispatch {
  const { call, router } = judge;
  const { config, inputs } = call;
  const [numTokens, numExperts] = [call.x.rows, numColumns(config)];
  const isSure = !chosen.includes(EITHER);
  const flags = isSure ? chosen : expectedChoice;
  const routing: Routing = { logits: compared.logits.value, probs: compared.probs.value };
  const plan = planWithinCapacity(
    rankedSelection(flags, numTokens, numExperts, routing, call),
    routing,
    inputs,
    config,
  );
  const expected = keptFlags(plan);

  const capacities = capacitiesOf(numTokens, inputs, config);
  const wishes = capacities ? wishesOf(chosen, numTokens, numExperts, compared, inputs, config, router) : [];
  const step = priorityStep(levelsOf(chosen, numTokens, numExperts), config, router);
  const possible = keepable(chosen, wishes, capacities, step, config);
  const numAmbiguous = step < Number.POSITIVE_INFINITY ? numContested(possible, chosen, numExperts) : 0;

  const own = ownFlags(judge, 'kept');
  const misshapen = judge.observation.misshapen.get('kept');
  if (!own) {
    const judged = misshapen ? verdict('dispatch', 'disagree', `kept: ${misshapen}`) : notJudged('dispatch', 'no kept');
    return { verdict: { ...judged, numAmbiguous }, kept: possible, expected };
  }
  const faults = faultsOfFlags(judge, 'kept');
  if (faults) return { verdict: verdict('dispatch', 'disagree', faults, numAmbiguous), kept: own, expected };
  const stranger = own.findIndex((flag, i) => flag === 1 && chosen[i] === OUT);
  if (stranger >= 0) {
    const place = `token ${Math.floor(stranger / numExperts)}, expert ${stranger % numExperts}`;
    if (onSelection.verdict === 'not judged') {
      const selection = verdict(
        'selection',
        'disagree',
        `kept, but not to be selected: ${place}`,
        onSelection.numAmbiguous,
      );
      return { verdict: notJudged('dispatch', 'no selected'), selection, kept: own, expected };
    }
    const detail = `kept, but not selected: ${place}; dropped pairs are not re-routed`;
    return { verdict: verdict('dispatch', 'disagree', detail, numAmbiguous), kept: own, expected };
  }
  judge.findings.push(...tokenTies(wishes, own));
  return { verdict: judgeKept(own), kept: own, expected };

  function judgeKept(kept: Uint8Array): StageVerdicts {
    const numOther = kept.reduce((count, flag, i) => count + (flag === expected[i] ? 0 : 1), 0);
    if (numOther === 0) return verdict('dispatch', 'agree', '', numAmbiguous);
    const isPossible = kept.every((flag, i) => possible[i] === EITHER || flag === possible[i]);
    if (!isSure && isPossible)
      return {
        ...notJudged('dispatch', 'no selected, and what may be kept follows from several selections'),
        numAmbiguous,
      };
    const faultFor = (capacity: number | undefined) =>
      keptFault(kept, chosen, wishes, capacity, step, numExperts, judge);
    const [first, ...others] = (capacities ?? [undefined]).map(faultFor);
    if (first === undefined || others.includes(undefined)) {
      const why =
        first === undefined
          ? 'by no more than rounding or an open order'
          : 'with a capacity that float32 rounding explains';
      return verdict('dispatch', 'admissible', `${numOther} pairs are kept or dropped otherwise, ${why}`, numAmbiguous);
    }
    const likeness = likenessOf(call, plan.selection, routing, kept);
    const unjudged = onSelection.verdict === 'not judged' ? 'selection or dispatch: ' : '';
    return verdict(
      'dispatch',
      'disagree',
      [`${unjudged}${first}`, ...(likeness ? [likeness] : [])].join('; '),
      numAmbiguous,
    );
  }
}

/** A selection of these experts, each token's in order of rank. */
export function rankedSelection(
  flags: Uint8Array,
  numTokens: number,
  numExperts: number,
  routing: Routing,
  { config, inputs }: LayerCall,
) {
  return selectionOf(numTokens, numExperts, undefined, t => {
    const own = flags.subarray(t * numExperts, (t + 1) * numExperts);
    if (routing.probs.cols === 0) return Array.from(own.keys()).filter(e => own[e] === IN);
    const byProb = byRank(row(routing.probs, t)).filter(e => own[e] === IN);
    if (config.router !== 'topk' || byProb.length < 2) return byProb;
    const rest = byRank(noisyLogits(routing, inputs, t)).filter(e => own[e] === IN && e !== byProb[0]);
    return [byProb[0], ...rest];
  });
}

export function keptFlags({ selection, kept }: DispatchPlan): Uint8Array {
  const flags = new Uint8Array(selection.numTokens * selection.numExperts);
  for (let t = 0; t < selection.numTokens; t++) {
    for (let pair = selection.tokenOffsets[t]; pair < selection.tokenOffsets[t + 1]; pair++) {
      flags[t * selection.numExperts + selection.expertIndex[pair]] = kept[pair];
    }
  }
  return flags;
}

/** The experts for which another token might be kept than is. */
function numContested(possible: Uint8Array, chosen: Uint8Array, numExperts: number): number {
  const contested = new Set<number>();
  possible.forEach((status, i) => {
    if (status === EITHER && chosen[i] === IN) contested.add(i % numExperts);
  });
  return contested.size;
}

/** The first expert that keeps too few, too many or the wrong tokens for this capacity. */
function keptFault(
  kept: Uint8Array,
  chosen: Uint8Array,
  wishes: readonly (readonly Wish[])[],
  capacity: number | undefined,
  step: number,
  numExperts: number,
  { call }: Judge,
): string | undefined {
  if (capacity === undefined) {
    const lost = kept.findIndex((flag, i) => flag === 0 && chosen[i] === IN);
    return lost < 0
      ? undefined
      : `nothing is dropped here, but token ${Math.floor(lost / numExperts)} lost expert ${lost % numExperts}`;
  }
  for (const [e, queue] of wishes.entries()) {
    const isKept = ({ token }: Wish) => kept[token * numExperts + e] === 1;
    const [theirs, dropped] = [queue.filter(isKept), queue.filter(wish => !isKept(wish))];
    const room = isSkipped(e, call.config) ? queue.length : Math.min(capacity, queue.length);
    if (theirs.length !== room) {
      return `expert ${e} keeps ${theirs.length} of ${queue.length} tokens, expected ${room} (capacity ${isSkipped(e, call.config) ? 'unlimited' : capacity})`;
    }
    for (const loser of dropped) {
      const winner = theirs.find(wish => isBefore(loser, wish, step));
      if (winner) {
        const [lost, won] = [loser, winner].map(
          ({ token, leastRank, prob }) => `token ${token} (rank ${leastRank}, p ${prob})`,
        );
        return `expert ${e} drops ${lost} but keeps ${won}`;
      }
    }
  }
  return undefined;
}
