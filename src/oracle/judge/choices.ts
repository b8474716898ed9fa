/** Which experts a token may choose, when the numbers that it compares are known to within an error. */
import { row } from '../../matrix.js';
import { byRank, isReal } from '../../selection/selection.js';
import type { Config, Floats, RoutingInputs } from '../../types.js';
import type { Approximate } from '../bounds/approximate.js';
import { formats } from '../bounds/arithmetic.js';
import { sumsAreExact } from '../bounds/exactness.js';
import { holds, type Rounding } from '../bounds/rounding.js';

/** Of one expert for one token: it must be out, must be in, or may be either. */
export const OUT = 0;
export const IN = 1;
export const EITHER = 2;

/** A router's rule for one token. */
export interface Choice {
  /** For each expert OUT, IN or EITHER. [E] */
  readonly status: Uint8Array;
  /** Why these experts cannot be the choice, when each alone could; undefined where they can. */
  fault(chosen: readonly number[]): string | undefined;
}

/** What the routers compare: logits, and probabilities; both without error where they are the implementation's own. */
export interface Compared {
  readonly logits: Approximate;
  readonly probs: Approximate;
}

/** The choice of one real token; padding chooses none. BASE's training assignment is of all tokens together, and not here. */
export function choiceOf(
  token: number,
  numExperts: number,
  compared: Compared,
  inputs: RoutingInputs,
  config: Config,
  rounding: Rounding,
): Choice {
  if (!isReal(inputs.tokenMask, token)) return fixed(new Uint8Array(numExperts));
  const probs = intervals(compared.probs, token);
  switch (config.router) {
    case 'threshold':
      return thresholdChoice(probs, config.threshold!, rounding);
    case 'topk':
      return topKChoice(probs, noisy(compared.logits, token, inputs, rounding), config.topK!);
    case 'switch':
      return topKChoice(probs, probs, 1);
    case 'base_eval': {
      const logits = intervals(compared.logits, token);
      return topKChoice(logits, logits, 1);
    }
    case 'hash': {
      const status = new Uint8Array(numExperts);
      status[inputs.hashTable![inputs.tokenIds![token]]] = IN;
      return fixed(status);
    }
    default:
      return fixed(new Uint8Array(numExperts).fill(IN));
  }
}

/** Numbers of one token, and the error of each. */
export interface Intervals {
  readonly values: Floats;
  readonly errors: Float64Array;
}

export function intervals({ value, error }: Approximate, token: number): Intervals {
  return { values: row(value, token), errors: error.subarray(token * value.cols, (token + 1) * value.cols) };
}

/** z + noise, rounded once, and the noise before it if it has to be. */
export function noisy(logits: Approximate, token: number, { noise }: RoutingInputs, { u }: Rounding): Intervals {
  const z = intervals(logits, token);
  if (!noise) return z;
  const added = row(noise, token);
  const values = z.values.map((value: number, e: number) => value + added[e]) as Floats;
  const errors = z.errors.map((error, e) => {
    const isExact = [z.values[e], added[e], values[e]].every(v => Math.fround(v) === v);
    return isExact ? error : error + u * (Math.abs(added[e]) + Math.abs(values[e]));
  });
  return { values, errors };
}

function fixed(status: Uint8Array): Choice {
  return { status, fault: () => undefined };
}

/**
 * XMoE's rule. An expert may be in where the least mass that may be before it is below τ, or no other is surely before
 * it; it may be out where the most mass that may be before it is not.
 *
 * Rounding  of the partial mass and of τ, with `(cumsum − p) < τ` as good as a running sum. None where the probabilities
 *           are multiples of 2^-24, whose sums are exact
 */
function thresholdChoice({ values, errors }: Intervals, threshold: number, rounding: Rounding): Choice {
  const numExperts = values.length;
  const order = byRank(values);
  const status = new Uint8Array(numExperts);
  const isExact = sumsAreExact(values) && errors.every(e => e === 0);
  const ofThreshold = holds(formats.f32, Float64Array.of(threshold)) || isDouble(rounding) ? 0 : rounding.u;
  const largestError = errors.reduce((a, b) => Math.max(a, b), 0);
  const allowed = (mass: number, error: number, numTerms: number) =>
    ofThreshold * Math.abs(threshold) + (isExact ? 0 : rounding.sum(numTerms) * mass + error);
  const isBelow = (mass: number, error: number) => mass < threshold || (error > 0 && mass - threshold <= error);
  const isReached = (mass: number, error: number) => mass >= threshold || (error > 0 && threshold - mass <= error);

  let [before, errorBefore] = [0, 0];
  for (let rank = 0; rank < numExperts; rank++) {
    const e = order[rank];
    const [p, error] = [values[e], errors[e]];
    let [least, numSurelyBefore] = [before, rank];
    for (let r = rank - 1; r >= 0 && values[order[r]] - largestError <= p + error; r--) {
      if (values[order[r]] - errors[order[r]] > p + error) continue;
      least -= values[order[r]];
      numSurelyBefore--;
    }
    let [most, numMaybeBefore, errorMost] = [before, rank, errorBefore];
    for (let r = rank + 1; r < numExperts && values[order[r]] + largestError >= p - error; r++) {
      if (values[order[r]] + errors[order[r]] < p - error) continue;
      most += values[order[r]];
      errorMost += errors[order[r]];
      numMaybeBefore++;
    }
    const rounded = allowed(most + Math.abs(p), errorMost + error, numMaybeBefore + 1);
    const mayBeIn = numSurelyBefore === 0 || isBelow(least, rounded);
    const mayBeOut = numMaybeBefore > 0 && isReached(most, rounded);
    status[e] = mayBeIn ? (mayBeOut ? EITHER : IN) : OUT;
    before += p;
    errorBefore += error;
  }
  return {
    status,
    fault(chosen) {
      if (chosen.length === 0) return 'no expert at all: the first is forced';
      const massOf = (experts: readonly number[]) => experts.reduce((sum, e) => sum + values[e], 0);
      const last = chosen.reduce((a, b) => (values[b] < values[a] ? b : a));
      const error = chosen.reduce((sum, e) => sum + errors[e], 0);
      const mass = massOf(chosen);
      const rounded = allowed(mass, error, chosen.length);
      const massBefore = massOf(chosen.filter(e => e !== last));
      if (chosen.length > 1 && !isBelow(massBefore, rounded)) {
        return `the mass before its last expert, ${massBefore}, is not below τ = ${threshold}`;
      }
      if (chosen.length < numExperts && !isReached(mass, rounded)) {
        return `its mass, ${mass}, does not reach τ = ${threshold}`;
      }
      return undefined;
    },
  };
}

function isDouble({ compute }: Rounding): boolean {
  return compute.name === 'f64';
}

/** The best by `first`, then the k − 1 best of the rest by `then`. */
function topKChoice(first: Intervals, then: Intervals, topK: number): Choice {
  const numExperts = first.values.length;
  const highest = Math.max(...Array.from(first.values, (v, e) => v - first.errors[e]));
  const mayBeFirst = Array.from(first.values, (v, e) => v + first.errors[e] >= highest);
  const numMayBeFirst = mayBeFirst.filter(Boolean).length;
  const numChosen = Math.min(topK, numExperts);
  const status = new Uint8Array(numExperts);
  const surely = (a: number, b: number) => then.values[a] - then.errors[a] > then.values[b] + then.errors[b];
  for (let e = 0; e < numExperts; e++) {
    let [before, notAfter] = [0, 0];
    for (let f = 0; topK > 1 && f < numExperts; f++) {
      if (f === e) continue;
      if (surely(f, e) && !mayBeFirst[f]) before++;
      if (!surely(e, f) && !(mayBeFirst[f] && numMayBeFirst === 1)) notAfter++;
    }
    const mayBeIn = mayBeFirst[e] || before < numChosen - 1;
    const mustBeIn = (mayBeFirst[e] && numMayBeFirst === 1) || notAfter < numChosen - 1;
    status[e] = mustBeIn ? IN : mayBeIn ? EITHER : OUT;
  }
  return {
    status,
    fault(chosen) {
      if (chosen.length !== numChosen) return `${chosen.length} experts, expected ${numChosen}`;
      const isChosen = new Set(chosen);
      const rest = Array.from({ length: numExperts }, (_, e) => e).filter(e => !isChosen.has(e));
      const possible = chosen.some(
        best => mayBeFirst[best] && chosen.every(e => e === best || rest.every(other => !surely(other, e))),
      );
      return possible ? undefined : 'better experts are left out';
    },
  };
}
