/** From a call that shows a fault to a small one that shows it too: greedy, in a fixed order, so that it repeats. */
import { numColumns } from '../../selection/routers.js';
import { checkCall } from '../../validate.js';
import type { LayerCall } from '../types.js';
import { withExperts, withHidden, withTokens, withWidth } from './parts.js';
import { plainer, rounder } from './simpler.js';

export interface ShrinkLimits {
  /** Calls that may be tried. */
  readonly runs: number;
  /** Milliseconds after which no further call is tried. */
  readonly ms: number;
  /** An AbortSignal. */
  readonly signal?: { readonly aborted: boolean };
}

/** Prefixes of up to so many are tried one by one; what depends on a size alone is then found at its smallest. */
const SMALL = 17;

/** Of the runs of one length that might be cut, so many are tried: one by one, of hundreds, would cost more than it gains. */
const MOST_CUTS = 24;

/**
 * The smallest call found that `shows` the same: hidden units, columns, tokens and experts cut out, then options dropped,
 * then numbers rounded, again and again until nothing helps.
 */
export async function shrink(
  call: LayerCall,
  shows: (call: LayerCall) => boolean | Promise<boolean>,
  limits: ShrinkLimits,
): Promise<LayerCall> {
  const deadline = performance.now() + limits.ms;
  let best = call;
  let runs = 0;

  /** Takes the candidate if it shows the fault. */
  const take = async (candidate: () => LayerCall): Promise<boolean> => {
    if (runs >= limits.runs || performance.now() > deadline || limits.signal?.aborted) return false;
    const next = candidate();
    if (!isLegal(next)) return false;
    runs++;
    if (!(await shows(next)) || limits.signal?.aborted) return false;
    best = next;
    return true;
  };

  /** Takes what it can of the candidates, each made from the best call so far. */
  const takeAny = async (candidates: (call: LayerCall) => Iterable<LayerCall>): Promise<boolean> => {
    let taken = false;
    for (let passed = 0, more = true; more; ) {
      more = false;
      let at = 0;
      for (const candidate of candidates(best)) {
        if (at++ < passed) continue;
        if (await take(() => candidate)) {
          taken = more = true; // what was passed is not tried again in this round
          break;
        }
        passed++;
      }
    }
    return taken;
  };

  // what any call shows is not worth a search
  await take(() => [hidden, width, tokens, experts].reduce((least, of) => of.keep(least, range(0, of.least)), best));
  for (let again = true; again; ) {
    again = false;
    for (const dimension of dimensions) again = (await fewest(dimension, () => best, take)) || again;
    again = (await takeAny(plainer)) || again;
    again = (await takeAny(rounder)) || again;
  }
  return best;
}

/** Something that a call has many of, and the call with a part of them. */
interface Dimension {
  count(call: LayerCall): number;
  readonly least: number;
  keep(call: LayerCall, indices: readonly number[]): LayerCall;
}

/** Those first that are quick to cut and make all further calls cheaper. */
const hidden: Dimension = { count: ({ weights }) => weights.up[0].rows, least: 1, keep: withHidden };
const width: Dimension = { count: ({ x }) => x.cols, least: 1, keep: withWidth };

/** BASE training wants as many real tokens for each column: they go in rounds, and with their experts. */
const tokens: Dimension = {
  count: call => roundsOf(call).length,
  least: 0,
  keep(call, indices) {
    const rounds = roundsOf(call);
    return withTokens(call, inOrder(indices.map(i => rounds[i])));
  },
};
const experts: Dimension = {
  count: ({ config }) => config.numExperts,
  least: 1,
  keep(call, indices) {
    const fewer = withExperts(call, indices);
    if (call.config.router !== 'base_train') return fewer;
    const columns = numColumns(fewer.config);
    return withTokens(fewer, inOrder(roundsOf(call).map(round => round.slice(0, columns))));
  },
};

/** Two that are equal, together: faults of square matrices show in nothing else. */
const squareExperts: Dimension = {
  count: ({ x, weights }) => (x.cols === weights.up[0].rows ? x.cols : 1),
  least: 1,
  keep: (call, indices) => withWidth(withHidden(call, indices), indices),
};
const squareRouter: Dimension = {
  count: ({ config, x }) => (x.cols === numColumns(config) && config.router !== 'base_train' ? config.numExperts : 1),
  least: 1,
  keep(call, indices) {
    const columns = call.config.skipExpert ? [0, ...indices.map(e => e + 1)] : indices;
    return withWidth(withExperts(call, indices), columns);
  },
};

const dimensions: readonly Dimension[] = [
  hidden,
  width,
  tokens,
  experts,
  atSameCapacity(tokens),
  atSameCapacity(experts),
  squareExperts,
  squareRouter,
];

/** The same, with another γ, so that γ·T/E stays what it is. */
function atSameCapacity({ count, least, keep }: Dimension): Dimension {
  return {
    count: call => (call.config.capacityFactor ? count(call) : 0),
    least,
    keep(call, indices) {
      const fewer = keep(call, indices);
      const perExpert = ({ x, config }: LayerCall) => x.rows / config.numExperts;
      const capacityFactor = (call.config.capacityFactor! * perExpert(call)) / Math.max(1, perExpert(fewer));
      return { ...fewer, config: { ...fewer.config, capacityFactor } };
    },
  };
}

/** Each token alone; for BASE training, the real ones as many at a time as there are columns. */
function roundsOf({ config, x, inputs }: LayerCall): number[][] {
  const tokens = Array.from({ length: x.rows }, (_, t) => t);
  if (config.router !== 'base_train') return tokens.map(t => [t]);
  const isReal = (t: number) => inputs.tokenMask?.[t] !== 0;
  const real = tokens.filter(isReal);
  const columns = numColumns(config);
  const rounds = Array.from({ length: real.length / columns }, (_, i) => real.slice(i * columns, (i + 1) * columns));
  return [...rounds, ...tokens.filter(t => !isReal(t)).map(t => [t])];
}

function inOrder(rounds: readonly number[][]): number[] {
  return rounds.flat().sort((a, b) => a - b);
}

/** Cuts a dimension down: small prefixes, then half of a prefix at a time, then any run of shrinking length. */
async function fewest(
  { count, least, keep }: Dimension,
  best: () => LayerCall,
  take: (candidate: () => LayerCall) => Promise<boolean>,
): Promise<boolean> {
  const before = count(best());
  const prefix = (n: number) => take(() => keep(best(), range(0, n)));
  for (let n = least; n < Math.min(before, SMALL + 1); n++) if (await prefix(n)) return true;
  for (let low = SMALL + 1; low < count(best()); ) {
    const middle = Math.floor((low + count(best())) / 2);
    if (!(await prefix(middle))) low = middle + 1;
  }
  for (let length = Math.floor(count(best()) / 2); length >= 1; length = Math.floor(length / 2)) {
    for (let start = 0; start < Math.min(count(best()), MOST_CUTS * length); ) {
      const total = count(best());
      const cut = [...range(0, start), ...range(Math.min(total, start + length), total)];
      if (cut.length < least || cut.length === total || !(await take(() => keep(best(), cut)))) start += length;
    }
  }
  return count(best()) < before;
}

function range(first: number, end: number): number[] {
  return Array.from({ length: end - first }, (_, i) => first + i);
}

function isLegal({ x, weights, config, inputs, gradY }: LayerCall): boolean {
  try {
    checkCall(x, weights, config, inputs, gradY);
    return true;
  } catch {
    return false;
  }
}
