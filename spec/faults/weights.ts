/** Faults of the combine weights. */
import { type Floats, routers } from 'xmoe';
import type { LayerCall } from 'xmoe/oracle';
import { type Fault, faultsOf, OURS, XMOE } from './fault.js';
import type { Parts } from './parts.js';
import { expertOfRow, listsOf, pairsOf, significant } from './tools.js';

/** Combine weights of softmax routers, changed row by row. */
function weighing(
  change: (given: {
    w: number;
    token: number;
    expert: number;
    i: number;
    total: number;
    kept: number;
    k: number;
    call: LayerCall;
  }) => number,
  isMeant: (call: LayerCall) => boolean = () => true,
): Partial<Parts> {
  return {
    weigh(plan, { probs }, call): Floats {
      if (routers[call.config.router].weight !== 'probs' || !isMeant(call)) return plan.combineWeight;
      const expertOf = expertOfRow(plan);
      const mass = new Float64Array(plan.selection.numTokens);
      const keptMass = new Float64Array(plan.selection.numTokens);
      const count = new Int32Array(plan.selection.numTokens);
      for (const { token, expert, pair } of pairsOf(plan.selection)) {
        const p = probs.data[token * probs.cols + expert];
        mass[token] += p;
        keptMass[token] += plan.kept[pair] ? p : 0;
        count[token]++;
      }
      return Float64Array.from(plan.combineWeight, (w, i) => {
        const token = plan.tokenIndex[i];
        return change({
          w,
          token,
          expert: expertOf[i],
          i,
          total: mass[token],
          kept: keptMass[token],
          k: count[token],
          call,
        });
      });
    },
  };
}

/** Weights are judged with dispatch or where they are used. */
const ofWeights = faultsOf(['dispatch', 'combine']);

export const weightFaults: readonly Fault[] = [
  ofWeights(
    'weights renormalised over the kept experts',
    XMOE,
    weighing(({ w, kept }) => w / kept),
  ),
  ofWeights(
    'weights renormalised over the selected experts',
    'sglang #35160',
    weighing(({ w, total }) => w / total),
  ),
  ofWeights(
    'weights renormalised where k is 2 or more',
    'PaddleFleet #1051',
    weighing(({ w, total, k }) => (k > 1 ? w / total : w)),
  ),
  ofWeights(
    'the weight of a single expert is 1',
    'genai #2575',
    weighing(({ w, k }) => (k === 1 ? 1 : w)),
  ),
  ofWeights(
    'the scaling is skipped with a skip expert',
    'sglang-jax #1282',
    weighing(
      () => 1,
      ({ config }) => config.skipExpert === true,
    ),
  ),
  ofWeights(
    'the scaling is skipped with gated experts and no drop',
    'sglang-jax #1282',
    weighing(
      () => 1,
      ({ config, weights }) => weights.gate !== undefined && config.capacityFactor === null,
    ),
  ),
  ofWeights(
    'weights are wrong at exactly one (E, k)',
    'MetaX #270',
    weighing(({ w, k, call }) => (call.config.numExperts === 8 && k === 2 ? w / 2 : w)),
  ),
  ofWeights(
    'weights squared',
    XMOE,
    weighing(({ w }) => w * w),
  ),
  ofWeights(
    'weights rounded to bf16',
    OURS,
    weighing(({ w }) => significant(8)(w)),
  ),
  ofWeights(
    'weights times the number of experts',
    OURS,
    weighing(({ w, k }) => w * k),
  ),
  ofWeights('raw logits as weights', 'genai #2575', {
    weigh: (plan, { logits }, { config }) =>
      routers[config.router].weight === 'probs'
        ? plan.combineWeight.map(
            (_: number, i: number) => logits.data[plan.tokenIndex[i] * logits.cols + expertOfRow(plan)[i]],
          )
        : plan.combineWeight,
  }),
  ofWeights('weights normalised over the tokens of an expert', 'megablocks #87', {
    weigh(plan, _, { config }) {
      if (routers[config.router].weight !== 'probs') return plan.combineWeight;
      const expertOf = expertOfRow(plan);
      const sums = new Float64Array(plan.selection.numExperts);
      plan.combineWeight.forEach((w, i) => {
        sums[expertOf[i]] += w;
      });
      return plan.combineWeight.map((w: number, i: number) => (w === 0 ? 0 : w / sums[expertOf[i]]));
    },
  }),
  ofWeights('weights in order of rank beside experts in order of index', 'applied-ai #25', {
    weigh(plan, { probs }, { config }) {
      if (routers[config.router].weight !== 'probs') return plan.combineWeight;
      const expertOf = expertOfRow(plan);
      return plan.combineWeight.map((_: number, i: number) => {
        const list = listsOf(plan.selection)[plan.tokenIndex[i]];
        const place = [...list].sort((a, b) => a - b).indexOf(expertOf[i]);
        return probs.data[plan.tokenIndex[i] * probs.cols + list[place]];
      });
    },
  }),
  ofWeights('BASE weighs by the softmax', OURS, {
    weigh: (plan, { probs }, { config }) =>
      routers[config.router].weight === 'sigmoid'
        ? plan.combineWeight.map(
            (_: number, i: number) => probs.data[plan.tokenIndex[i] * probs.cols + expertOfRow(plan)[i]],
          )
        : plan.combineWeight,
  }),
  ofWeights('hash weighs by 1/E', OURS, {
    weigh: (plan, _, { config }) =>
      config.router === 'hash' ? plan.combineWeight.map(() => 1 / config.numExperts) : plan.combineWeight,
  }),
];
