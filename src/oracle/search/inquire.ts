/** Which stage is wrong, where an implementation tells no more than y: what it says of the same call with a stage left out. */
import { zeros } from '../../matrix.js';
import { forward, reference } from '../../moe.js';
import type { DispatchPlan } from '../../types.js';
import { conform } from '../judge/conform.js';
import type { Conformance, Implementation, LayerCall, StageName, StageVerdicts } from '../types.js';
import { answerOf } from './behaviour.js';
import { asDense } from './simpler.js';

/**
 * The same verdict, with another stage to blame where simpler calls tell so.
 *
 * Experts    wrong without a router too: each token to one of its experts, with weight 1
 * Dispatch   right where nothing is dropped
 * Selection  right where every expert is selected
 * Logits     right with a router of zeros
 * Else what was guessed; but experts that are right by themselves are not to blame, the weights are. A guess of combine says
 *            that they are right.
 *
 * Refused    a call that is not taken tells nothing
 */
export async function inquire(
  implementation: Implementation,
  call: LayerCall,
  result: Conformance,
): Promise<Conformance> {
  const guessed = result.stages.find(({ stage }) => stage === result.blamed);
  if (guessed?.guess === undefined || guessed.verdict !== 'disagree') return result;
  const { gradY, ...forwardOnly } = call;
  const isRight = async (simpler: LayerCall): Promise<boolean | undefined> => {
    const answer = await answerOf(implementation, simpler);
    if ('kind' in answer) return undefined;
    const { verdict, stages } = conform(answer, simpler, implementation.arithmetic);
    return stages.some(stage => stage.verdict !== 'not judged') ? verdict === 'conforms' : undefined;
  };
  const blame = (stage: StageName, why: string) => blaming(result, guessed, stage, why);

  const all = asDense(withoutDrops(forwardOnly));
  if (call.config.router === 'hash') {
    const right = await isRight(all);
    if (right === undefined) return result;
    return right ? blame('selection', 'right where every expert is selected') : blame('experts', 'wrong by any router');
  }
  let alone: boolean | undefined = guessed.stage === 'combine' || undefined;
  for (const simpler of alone ? [] : oneExpertEach(forwardOnly)) {
    alone = await isRight(simpler);
    if (alone === false) return blame('experts', 'wrong without a router too, each token at one expert with weight 1');
    if (alone === undefined) break;
  }
  if (call.config.capacityFactor !== null && (await isRight(withoutDrops(forwardOnly))))
    return blame('dispatch', 'right where nothing is dropped');
  if (SELECTING.includes(call.config.router) && (await isRight(all))) {
    return blame('selection', 'right where every expert is selected');
  }
  const isOfDecision = guessed.stage === 'selection' || guessed.stage === 'dispatch';
  if (!alone || isOfDecision) return result;
  if (await isRight({ ...all, weights: { ...call.weights, router: zeros(call.weights.router.rows, call.x.cols) } })) {
    return blame('logits', 'right with a router of zeros: logits or probs, which would tell');
  }
  return guessed.stage === 'experts'
    ? blame('combine', 'the experts are right without a router: probs would tell')
    : result;
}

/** Whose weights are the same probabilities when every expert is selected. */
const SELECTING: readonly string[] = ['threshold', 'topk', 'switch'];

function withoutDrops(call: LayerCall): LayerCall {
  const { minCapacity, ...config } = call.config;
  return { ...call, config: { ...config, capacityFactor: null } };
}

/** Each token at its first expert, at its last, and all at the busiest one, by a hash table: no router, weights of 1. */
function oneExpertEach(call: LayerCall): LayerCall[] {
  const { config, weights, inputs, x } = call;
  const { threshold, topK, auxLossCoef, ...others } = withoutDrops(call).config;
  const { plan } = forward(reference, x, weights, config, inputs);
  const numSkip = config.skipExpert ? 1 : 0;
  const busiest = busiestOf(plan, numSkip);
  const ofToken = (place: (real: readonly number[]) => number | undefined) => {
    const { tokenOffsets, expertIndex } = plan.selection;
    return Int32Array.from({ length: x.rows }, (_, t) => {
      const real = [...expertIndex.subarray(tokenOffsets[t], tokenOffsets[t + 1])].filter(e => e >= numSkip);
      return (place(real) ?? busiest) - numSkip;
    });
  };
  const hashTable = Int32Array.from(weights.up, (_, e) => e + numSkip);
  return [ofToken(real => real[0]), ofToken(real => real.at(-1)), ofToken(() => undefined)].map(tokenIds => ({
    ...call,
    config: { ...others, router: 'hash' },
    weights: { ...weights, router: zeros(0, x.cols) },
    inputs: { ...(inputs.tokenMask && { tokenMask: inputs.tokenMask }), hashTable, tokenIds },
  }));
}

function busiestOf({ expertOffsets }: DispatchPlan, numSkip: number): number {
  let busiest = numSkip;
  const rowsOf = (e: number) => expertOffsets[e + 1] - expertOffsets[e];
  for (let e = numSkip; e + 1 < expertOffsets.length; e++) if (rowsOf(e) > rowsOf(busiest)) busiest = e;
  return busiest;
}

/** The wrong verdict moves to the stage, with the reason instead of the guess. */
function blaming(result: Conformance, guessed: StageVerdicts, stage: StageName, why: string): Conformance {
  const { guess = '', detail, ...wrong } = guessed;
  const isMoved = stage !== guessed.stage;
  const told = isMoved ? detail.slice(0, -guess.length) : `${detail}; `;
  const stages = result.stages.map((judged): StageVerdicts => {
    if (judged.stage === stage) return { ...wrong, stage, detail: `${told}${why}` };
    if (!isMoved || judged.stage !== guessed.stage) return judged;
    return { stage: judged.stage, verdict: 'not judged', numAmbiguous: 0, detail: `y is wrong by the ${stage}` };
  });
  const findings = result.findings.map(finding => (finding.stage === guessed.stage ? { ...finding, stage } : finding));
  return { ...result, stages, findings, blamed: stage };
}
