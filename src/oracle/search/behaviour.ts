/** What an implementation does besides answering: whether it answers the same again, alone, and after something else. */
import { routers } from '../../selection/routers.js';
import type { Matrix } from '../../types.js';
import { stageOf } from '../judge/observe.js';
import type { Conformance, Finding, Implementation, LayerCall, Outputs } from '../types.js';
import type { ImplementationError } from './implementation-error.js';
import { withTokens } from './parts.js';

/** `repeat`: the same call again. `batch`: a part of its tokens alone. `poison`: again, after a call that overflows. */
export type Behaviour = 'repeat' | 'batch' | 'poison';

export const behaviours: readonly Behaviour[] = ['repeat', 'batch', 'poison'];

/** Judges outputs of a call. */
export type Judge = (outputs: Outputs, call: LayerCall) => Conformance;

/** An answer with memory of its own, or why there is none. A refusal is a property, all else a fault. */
export async function answerOf(implementation: Implementation, call: LayerCall): Promise<Outputs | Finding> {
  try {
    const reason = implementation.refuses?.(call);
    if (reason !== undefined) return { kind: 'refused', severity: 'property', detail: reason };
    const outputs = await implementation.run(call);
    return new Map(Array.from(outputs, ([name, { shape, data }]) => [name, { shape: [...shape], data: data.slice() }]));
  } catch (error) {
    const { name, message } = error instanceof Error ? error : new Error(String(error));
    // by its name: a module may have another copy of this package
    if (name !== 'ImplementationError') {
      return { kind: 'crashed', severity: 'fault', detail: `it threw ${name}: ${message}` };
    }
    const { kind } = error as ImplementationError;
    return { kind, severity: kind === 'refused' ? 'property' : 'fault', detail: message };
  }
}

/** What is seen of one behaviour, given the first answer, which conforms. */
export async function observe(
  behaviour: Behaviour,
  implementation: Implementation,
  call: LayerCall,
  first: Outputs,
  judge: Judge,
): Promise<Finding[]> {
  if (behaviour === 'batch') {
    const parts = independentOfBatch(call) ? partsOf(call.x.rows) : [];
    const findings: Finding[] = [];
    for (const tokens of parts) findings.push(...(await observePart(implementation, call, tokens, first, judge)));
    return findings.slice(0, 1);
  }
  if (behaviour === 'poison') await answerOf(implementation, poisoned(call));
  const kind = behaviour === 'poison' ? 'poisoned buffer' : 'not repeatable';
  const when = behaviour === 'poison' ? 'after a call whose values overflow' : 'the second time';
  const again = await answerOf(implementation, call);
  if ('kind' in again) return [{ ...again, detail: `${when}: ${again.detail}` }];
  return told(kind, `${when}, `, first, again, judge(again, call));
}

async function observePart(
  implementation: Implementation,
  call: LayerCall,
  tokens: readonly number[],
  whole: Outputs,
  judge: Judge,
): Promise<Finding[]> {
  const { gradY, ...rest } = call;
  const partCall = withTokens(rest, tokens);
  const part = await answerOf(implementation, partCall);
  const when = tokens.length === 1 ? `token ${tokens[0]} alone` : `the first ${tokens.length} tokens alone`;
  if ('kind' in part) return [{ ...part, detail: `${when}: ${part.detail}` }];
  return told('batch-dependent', `${when}: `, rowsOf(whole, tokens), part, judge(part, partCall));
}

/** Of another answer that differs: a fault where it does not conform, told by the stage to blame, else a property. */
function told(
  kind: Finding['kind'],
  when: string,
  first: Outputs,
  other: Outputs,
  { verdict, blamed }: Conformance,
): Finding[] {
  const difference = differenceOf(first, other);
  if (difference === undefined) return [];
  if (verdict === 'conforms')
    return [{ kind, severity: 'property', detail: `${when}${difference}; within the bounds` }];
  const ofBlamed = new Map([...first].filter(([name]) => stageOf(name) === blamed));
  const ofY = new Map([...first].filter(([name]) => name === 'y'));
  const worst = differenceOf(ofBlamed, other) ?? differenceOf(ofY, other) ?? difference;
  return [{ kind, severity: 'fault', ...(blamed && { stage: blamed }), detail: `${when}${worst}` }];
}

/** Where nothing is dropped a token's way does not depend on the others, balanced assignment aside. */
function independentOfBatch({ config, x }: LayerCall): boolean {
  const noDrop = config.capacityFactor === null || routers[config.router].dropOrder === 'none';
  return noDrop && config.router !== 'base_train' && x.rows > 1;
}

function partsOf(numTokens: number): number[][] {
  return [[numTokens - 1], Array.from({ length: Math.ceil(numTokens / 2) }, (_, t) => t)];
}

/** Experts whose products overflow in float32, and all else the same. */
function poisoned(call: LayerCall): LayerCall {
  const { gradY, ...rest } = call;
  const huge = (a: Matrix): Matrix => ({ ...a, data: a.data.map((_, i) => (i % 2 ? -1e30 : 1e30)) });
  const { up, gate, down } = call.weights;
  return {
    ...rest,
    weights: { ...call.weights, up: up.map(huge), ...(gate && { gate: gate.map(huge) }), down: down.map(huge) },
  };
}

/** The rows of these tokens, of the outputs that have one for each token. */
function rowsOf(outputs: Outputs, tokens: readonly number[]): Outputs {
  const perToken = ['logits', 'probs', 'selected', 'kept', 'combine', 'y'].filter(
    name => outputs.get(name)?.shape.length === 2, // a router has outputs that others lack, and nobody has looked at those
  );
  return new Map(
    perToken.map(name => {
      const { shape, data } = outputs.get(name)!;
      const cols = shape[1];
      const values = Float64Array.from({ length: tokens.length * cols }, (_, i) => {
        return data[tokens[Math.floor(i / cols)] * cols + (i % cols)];
      });
      return [name, { shape: [tokens.length, cols], data: values }];
    }),
  );
}

/** The first of the outputs in both that differs, and where it does most. */
function differenceOf(expected: Outputs, got: Outputs): string | undefined {
  for (const [name, { shape, data }] of expected) {
    const other = got.get(name);
    if (!other) return `${name} is missing`;
    if (other.shape.join() !== shape.join()) return `${name} has shape [${other.shape}] instead of [${shape}]`;
    let worst = { at: 0, by: 0 };
    for (let at = 0; at < data.length; at++) {
      const [a, b] = [data[at], other.data[at]];
      const by = a === b || (Number.isNaN(a) && Number.isNaN(b)) ? 0 : Math.abs(a - b);
      if (by > worst.by || Number.isNaN(by)) worst = { at, by };
    }
    if (worst.by === 0) continue;
    const cols = shape.at(-1) ?? 1;
    const place = shape.length > 1 ? `[${Math.floor(worst.at / cols)}, ${worst.at % cols}]` : `[${worst.at}]`;
    return `${name}${place} was ${data[worst.at]} and is ${other.data[worst.at]}`;
  }
  return undefined;
}
