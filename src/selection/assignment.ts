/** The balanced assignment of BASE training: every expert gets the same number of tokens. */
import type { Matrix } from '../types.js';

/**
 * Give each expert exactly T/E tokens so that the total, Σ_t logits[t, expert of t], is the largest possible.
 *
 * Maths   The linear assignment problem with T/E places in each column; cost is minus the logit. Tokens enter one by one,
 *         each by the cheapest path to a free place: it takes a place at one expert, a token of that expert moves to
 *         another, and so on. Potentials v keep every reduced cost (cost[t, f] − v[f]) − (cost[t, e] − v[e]), for
 *         t at expert e, from being negative: that is what Dijkstra's algorithm needs, and what proves the
 *         assignment of the entered tokens the best one
 * Shapes  logits [T, E] -> [T], the expert of each token. A caller with padding passes the real rows alone
 * Ties    Repeatable: of equally near experts the one of lowest index, of equally good moves to it the first found.
 *         Equal logits fill expert 0 with the first T/E tokens, then expert 1
 * Error   Exact while sums of 2 E logits are exact (integers, say); else the total is the largest to within rounding
 * Cost    O(T² E) time, O(T E) memory
 * Source  M. Lewis et al., BASE Layers, arXiv 2103.16716. The method of Kuhn and Munkres, by shortest augmenting paths:
 *         R. Jonker and A. Volgenant, Computing 38 (1987)
 * @throws RangeError if T is not a multiple of E, or a logit is not finite
 */
export function balancedAssignment(logits: Matrix): Int32Array {
  const { rows: numTokens, cols: numExperts } = logits;
  if (numTokens % numExperts !== 0) {
    throw new RangeError(`"logits" expected rows (tokens) a multiple of the ${numExperts} experts, got ${numTokens}`);
  }
  const matching: Matching = {
    numExperts,
    places: numTokens / numExperts,
    cost: costs(logits),
    potential: new Float64Array(numExperts),
    load: new Int32Array(numExperts),
    expertOf: new Int32Array(numTokens),
  };
  for (let token = 0; token < numTokens; token++) enter(matching, token);
  return matching.expertOf;
}

/** The tokens that have entered, 0 up to some token, and where they are. */
interface Matching {
  readonly numExperts: number;
  /** T/E: the tokens that an expert takes. */
  readonly places: number;
  /** [T, E] */
  readonly cost: Float64Array;
  /** v: 0 at experts with a free place, lower the more a place is in demand. [E] */
  readonly potential: Float64Array;
  /** How many tokens each expert has. [E] */
  readonly load: Int32Array;
  /** [T] */
  readonly expertOf: Int32Array;
}

/** Minus the logits; if sums of them could overflow, scaled by a power of two, which keeps their order. */
function costs(logits: Matrix): Float64Array {
  let largest = 0;
  for (const [i, z] of logits.data.entries()) {
    if (!Number.isFinite(z)) {
      const [t, e] = [Math.floor(i / logits.cols), i % logits.cols];
      throw new RangeError(`"logits" expected finite values, got ${z} at [${t}, ${e}]`);
    }
    largest = Math.max(largest, Math.abs(z));
  }
  const scale = largest > 2 ** 960 ? 2 ** -64 : 1;
  return Float64Array.from(logits.data, z => -z * scale);
}

/** Give `token` a place, moving others along the cheapest path. */
function enter(matching: Matching, token: number): void {
  const { potential, load, expertOf } = matching;
  const { end, settled, distance, mover } = cheapestPath(matching, token);
  for (const expert of settled) potential[expert] += distance[expert] - distance[end];
  // backwards from the free place: its mover vacates another, until the one for the new token
  let vacant = end;
  while (mover[vacant] !== token) {
    const moved = mover[vacant];
    const left = expertOf[moved];
    expertOf[moved] = vacant;
    vacant = left;
  }
  expertOf[token] = vacant;
  load[end]++;
}

interface Path {
  /** The nearest expert with a free place. */
  readonly end: number;
  /** The full experts that are nearer. */
  readonly settled: readonly number[];
  /** Of the cheapest path to each expert, in reduced costs. [E] */
  readonly distance: Float64Array;
  /** The token that moves last on that path, to the expert. [E] */
  readonly mover: Int32Array;
}

/** Dijkstra's algorithm: from `token` to every expert, and on from a full expert by each of its tokens. */
function cheapestPath(matching: Matching, token: number): Path {
  const { numExperts, places, cost, potential, load, expertOf } = matching;
  const distance = potential.map((v, e) => cost[token * numExperts + e] - v);
  const mover = new Int32Array(numExperts).fill(token);
  const isSettled = new Uint8Array(numExperts);
  const settled: number[] = [];
  for (;;) {
    const nearest = nearestUnsettled(distance, isSettled);
    if (load[nearest] < places) return { end: nearest, settled, distance, mover };
    isSettled[nearest] = 1;
    settled.push(nearest);
    for (let t = 0; t < token; t++) {
      if (expertOf[t] !== nearest) continue;
      const stay = cost[t * numExperts + nearest] - potential[nearest];
      for (let e = 0; e < numExperts; e++) {
        const through = distance[nearest] + (cost[t * numExperts + e] - potential[e] - stay);
        if (!isSettled[e] && through < distance[e]) {
          distance[e] = through;
          mover[e] = t;
        }
      }
    }
  }
}

/** The expert of least distance, the lowest index if several. */
function nearestUnsettled(distance: Float64Array, isSettled: Uint8Array): number {
  let nearest = -1;
  for (let e = 0; e < distance.length; e++) {
    if (!isSettled[e] && (nearest < 0 || distance[e] < distance[nearest])) nearest = e;
  }
  return nearest;
}
