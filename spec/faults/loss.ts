/** Faults of the load-balancing loss. */
import { type DispatchPlan, type Matrix, type Routing, routers } from 'xmoe';
import type { LayerCall } from 'xmoe/oracle';
import { type Fault, faultsOf, OURS, XMOE } from './fault.js';
import { honest, type Parts } from './parts.js';
import { isReal, pairsOf } from './tools.js';

const ofLoss = faultsOf(['loss', 'non-finite']);

/** Of one expert: the mean probability, the share of tokens that count for it. */
interface OfExpert {
  readonly meanProb: number;
  readonly share: number;
  readonly E: number;
  readonly call: LayerCall;
}

interface Counting {
  readonly routing: Routing;
  readonly plan: DispatchPlan;
  readonly call: LayerCall;
}

interface Loss {
  /** Which (token, expert) pairs are counted, and by what they are divided. Default: first choices, over the real tokens. */
  readonly counted?: (given: Counting) => { token: number; expert: number }[];
  readonly tokens?: (call: LayerCall) => number[];
  readonly divisor?: (call: LayerCall) => number;
  readonly term?: (given: OfExpert) => number;
}

function lossBy({ counted = firstChoices, tokens = realTokens, divisor, term = right }: Loss): Partial<Parts> {
  return {
    loss(routing, plan, call) {
      if (!routers[call.config.router].balanced) return 0;
      const { probs } = routing;
      const meant = tokens(call);
      const T = divisor ? divisor(call) : meant.length;
      if (T === 0) return 0;
      const pairs = counted({ routing, plan, call });
      return Array.from({ length: probs.cols }, (_, e) => {
        const meanProb = meant.reduce((sum, t) => sum + probs.data[t * probs.cols + e], 0) / T;
        const share = pairs.filter(({ expert }) => expert === e).length / T;
        return term({ meanProb, share, E: probs.cols, call });
      }).reduce((a, b) => a + b, 0);
    },
  };
}

const right = ({ meanProb, share, E }: OfExpert) => E * meanProb * share;

function realTokens(call: LayerCall): number[] {
  return allTokens(call).filter(t => isReal(call, t));
}

function allTokens({ x }: LayerCall): number[] {
  return Array.from({ length: x.rows }, (_, t) => t);
}

const bestOf = (tokens: (call: LayerCall) => number[], values: (routing: Routing) => Matrix = ({ probs }) => probs) => {
  return ({ routing, call }: Counting) =>
    tokens(call).map(token => {
      const { cols, data } = values(routing);
      const row = data.subarray(token * cols, (token + 1) * cols);
      return { token, expert: row.indexOf(Math.max(...row)) };
    });
};
const firstChoices = bestOf(realTokens);

const pairs = ({ plan }: Counting) => pairsOf(plan.selection);
const kept = ({ plan }: Counting) => pairsOf(plan.selection).filter(({ pair }) => plan.kept[pair] === 1);

export const lossFaults: readonly Fault[] = [
  ofLoss(
    'first choices counted after capacity',
    XMOE,
    lossBy({ counted: given => kept(given).filter(({ rank }) => rank === 0) }),
  ),
  ofLoss('all selected experts counted', XMOE, lossBy({ counted: pairs })),
  ofLoss('all kept experts counted', XMOE, lossBy({ counted: kept })),
  ofLoss(
    'all selected experts counted, over their number',
    XMOE,
    lossBy({
      counted: pairs,
      term: ({ meanProb, share, E, call }) => (E * meanProb * share) / (call.config.topK ?? 1.5),
    }),
  ),
  ofLoss('without the factor E', XMOE, lossBy({ term: ({ meanProb, share }) => meanProb * share })),
  ofLoss(
    'the skip expert is left out of E',
    OURS,
    lossBy({ term: ({ meanProb, share, call }) => call.config.numExperts * meanProb * share }),
  ),
  ofLoss('padding counts in both means', 'marin #8953', lossBy({ counted: bestOf(allTokens), tokens: allTokens })),
  ofLoss('padding counts in T', 'Megatron #2142', lossBy({ divisor: ({ x }) => x.rows })),
  ofLoss(
    'padding counts in the mean of p',
    'marin #8953',
    lossBy({ tokens: allTokens, divisor: call => realTokens(call).length }),
  ),
  ofLoss(
    'α applied already',
    OURS,
    lossBy({ term: ({ call, ...given }) => (call.config.auxLossCoef ?? 1) * right({ ...given, call }) }),
  ),
  ofLoss(
    'the mean of p squared in place of the counts',
    OURS,
    lossBy({ term: ({ meanProb, E }) => E * meanProb * meanProb }),
  ),
  ofLoss('the counts squared in place of p', OURS, lossBy({ term: ({ share, E }) => E * share * share })),
  ofLoss('E squared', OURS, lossBy({ term: given => given.E * right(given) })),
  ofLoss('1 subtracted, so that balance is 0', OURS, {
    loss: (routing, plan, call) => (routers[call.config.router].balanced ? honest.loss(routing, plan, call) - 1 : 0),
  }),
  ofLoss('BASE has a loss too', OURS, {
    loss(routing, plan, call) {
      const isBase = call.config.router === 'base_eval' || call.config.router === 'base_train';
      return honest.loss(routing, plan, isBase ? { ...call, config: { ...call.config, router: 'switch' } } : call);
    },
  }),
  ofLoss(
    'with noise, the noisy first choice is counted',
    OURS,
    lossBy({
      counted: ({ routing, call }) => {
        const { noise } = call.inputs;
        const noisy = noise
          ? { ...noise, data: noise.data.map((n: number, i: number) => n + routing.logits.data[i]) }
          : routing.probs;
        return bestOf(realTokens, () => noisy)({ routing, call } as Counting);
      },
    }),
  ),
  ofLoss('of no token: 0 / 0', OURS, {
    loss: (routing, plan, call) =>
      realTokens(call).length === 0 && routers[call.config.router].balanced
        ? Number.NaN
        : honest.loss(routing, plan, call),
  }),
  ofLoss('none at all', OURS, { loss: () => 0 }),
  faultsOf('loss', true)('α·l_aux is not in the loss', OURS, {
    gradients: (gradients, trace, { config }) => ({
      ...gradients,
      loss: gradients.loss - (config.auxLossCoef ?? 0) * trace.loadBalancingLoss,
    }),
  }),
  faultsOf('loss', true)('the loss is a mean over tokens', OURS, {
    gradients: (gradients, _, { x }) => ({ ...gradients, loss: gradients.loss / Math.max(1, x.rows) }),
  }),
];
