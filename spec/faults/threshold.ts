/** Faults of the threshold router. */
import type { Routing } from 'xmoe';
import type { LayerCall } from 'xmoe/oracle';
import { choosing, ofRanks, ofSelection, ranked } from './choosing.js';
import { type Fault, OURS, XMOE } from './fault.js';
import { honest, type Parts } from './parts.js';
import { mapped, significant } from './tools.js';

/** Threshold: takes rank 0, and further ones while `takes` says so. */
function prefix(
  takes: (massBefore: number, p: number, threshold: number, rank: number) => boolean,
  key: (p: number, e: number) => number = p => p,
  add: (mass: number, p: number) => number = (mass, p) => mass + p,
): Partial<Parts> {
  return choosing('threshold', ({ p, call }) => {
    const order = ranked(p.map(key));
    const chosen: number[] = [];
    let mass = 0;
    for (const e of order) {
      if (chosen.length > 0 && !takes(mass, p[e], call.config.threshold!, chosen.length)) break;
      chosen.push(e);
      mass = add(mass, p[e]);
    }
    return chosen;
  });
}

const reaches = (mass: number, _: number, threshold: number) => threshold > 1 || mass < threshold;

/** The right selection, on other probabilities or logits. */
function onOther(change: (routing: Routing, call: LayerCall) => Partial<Routing>): Partial<Parts> {
  return { select: (routing, call) => honest.select({ ...routing, ...change(routing, call) }, call) };
}

export const thresholdFaults: readonly Fault[] = [
  ofSelection(
    '≤ for < at the threshold (“exceed”)',
    XMOE,
    prefix((mass, _, threshold) => threshold > 1 || mass <= threshold),
  ),
  ofSelection(
    'the crossing expert lost (“within”)',
    XMOE,
    prefix((mass, p, threshold) => threshold > 1 || mass + p <= threshold),
  ),
  ofSelection(
    'the first expert is not forced',
    XMOE,
    choosing('threshold', ({ call, right }) => (call.config.threshold! > 0 ? right : [])),
  ),
  ofRanks(
    'least probable first',
    OURS,
    prefix(reaches, p => -p),
  ),
  ofRanks(
    'experts taken in order of index',
    OURS,
    prefix(reaches, (_, e) => -e),
  ),
  ofSelection(
    'τ = 1 taken for every expert',
    OURS,
    choosing('threshold', ({ p, call, right }) => (call.config.threshold === 1 ? ranked(p) : right)),
  ),
  ofSelection(
    'τ > 1 loses the experts of probability 0',
    OURS,
    choosing('threshold', ({ p, right }) => right.filter((e, rank) => rank === 0 || p[e] > 0)),
  ),
  ofSelection(
    'every expert of probability above τ',
    OURS,
    choosing('threshold', ({ p, call }) => ranked(p).filter((e, rank) => rank === 0 || p[e] > call.config.threshold!)),
  ),
  ofSelection(
    'τ is a share of the largest probability',
    OURS,
    choosing('threshold', ({ p, call }) =>
      ranked(p).filter((e, rank) => rank === 0 || p[e] >= (1 - call.config.threshold!) * Math.max(...p)),
    ),
  ),
  ofSelection(
    'the threshold stays at 0.9',
    OURS,
    prefix(mass => mass < 0.9),
  ),
  ofSelection(
    'at most 8 experts for a token',
    OURS,
    choosing('threshold', ({ right }) => right.slice(0, 8)),
  ),
  ofSelection(
    'at least two experts for a token',
    OURS,
    choosing('threshold', ({ p, right }) => (right.length === 1 ? ranked(p).slice(0, 2) : right)),
  ),
  ofRanks(
    'an epsilon that breaks ties reorders near neighbours',
    'sglang #31768',
    prefix(reaches, (p, e) => p - 1e-4 * e),
  ),
  ofSelection(
    'a tolerance of 1e-3 at the threshold',
    OURS,
    prefix((mass, _, threshold) => threshold > 1 || mass < threshold - 1e-3),
  ),
  ofRanks(
    'probabilities rounded to bf16 before selection',
    'AstrAI #57',
    onOther(({ probs }) => ({ probs: mapped(probs, significant(8)) })),
  ),
  ofSelection(
    'the mass is summed in bf16',
    'AstrAI #57',
    prefix(
      reaches,
      p => p,
      (mass, p) => significant(8)(mass + p),
    ),
  ),
  ofSelection(
    'the mass of the first expert is not counted',
    OURS,
    prefix(
      (mass, _, threshold, rank) => threshold > 1 || rank < 1 || mass < threshold,
      p => p,
      (mass, p) => (mass === 0 ? 2 ** -1000 : mass + p),
    ),
  ),
];
