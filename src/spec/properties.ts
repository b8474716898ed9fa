/** The rules of spec/SEMANTICS.md as properties of an implementation: which layers, and which of their stages must be right. */
import fc from 'fast-check';
import type { Behaviour, StageName } from '../oracle/index.js';
import type { ActivationName } from '../types.js';
import { hundredsOfExperts, noDrop, softmaxRouters, type Wanted, withCapacity } from './generators.js';

/** For random layers of this kind, these stages are right. */
export interface Property {
  /** Begins with its rule's id; a name stands once. */
  readonly name: string;
  readonly layers: Wanted;
  readonly stages: readonly StageName[] | 'all' | 'gradients' | 'behaviour';
  readonly behaviours?: readonly Behaviour[];
  /** A slow one runs this share of the cases (default 1). */
  readonly share?: number;
}

const small: Wanted = { maxSize: 9, large: false };
const threshold: Wanted = { routers: ['threshold'] };
const padded: Wanted = { masks: ['some padded', 'some padded', 'all padded'] };

function of(name: string, stages: Property['stages'], layers: Wanted, more: Partial<Property> = {}): Property {
  return { name, stages, layers, ...more };
}

const atEnds = fc.constantFrom(0, -1, -0.5, 1, 1 + 2 ** -52, 1.5, 100);

/** E a power of two and logits all equal: every probability and every mass is exact, and τ is one of the masses. */
const exact: Wanted = {
  routers: ['threshold'],
  logits: ['level'],
  skipExpert: false,
  thresholds: fc.integer({ min: 0, max: 16 }).map(n => n / 16),
  sizes: fc.record({
    numTokens: fc.integer({ min: 1, max: 9 }),
    numExperts: fc.constantFrom(1, 2, 4, 8, 16),
    dModel: fc.integer({ min: 1, max: 9 }),
    dFf: fc.integer({ min: 1, max: 9 }),
  }),
};

/** No token, one token, one expert, one column, one hidden unit. */
const degenerate: Wanted = {
  sizes: fc.record({
    numTokens: fc.integer({ min: 0, max: 2 }),
    numExperts: fc.integer({ min: 1, max: 2 }),
    dModel: fc.integer({ min: 1, max: 2 }),
    dFf: fc.integer({ min: 1, max: 2 }),
  }),
};

/** More experts than tokens can choose. */
const idle: Wanted = {
  sizes: fc.record({
    numTokens: fc.integer({ min: 1, max: 4 }),
    numExperts: fc.integer({ min: 9, max: 40 }),
    dModel: fc.integer({ min: 1, max: 9 }),
    dFf: fc.integer({ min: 1, max: 9 }),
  }),
};

const plain: readonly ActivationName[] = ['relu', 'gelu', 'gelu_tanh', 'silu'];
const gated: readonly ActivationName[] = ['swiglu', 'geglu'];
const base = ['base_eval', 'base_train'] as const;

const FORWARD: readonly Property[] = [
  of('R1 logits are a linear map of x', ['logits'], { routers: [...softmaxRouters, ...base] }),
  of('R2 probabilities are the softmax over all experts', ['probs'], { routers: [...softmaxRouters, ...base] }),
  of('R2 logits that are all negative, saturated or steep are legal', ['probs'], {
    routers: softmaxRouters,
    logits: ['negative', 'saturated', 'steep'],
  }),
  of('R3 padding selects nothing, takes no capacity, counts in no mean and gives 0', 'all', padded),
  of('R4 no token, one token and one expert are layers too', 'all', degenerate),
  of('D1 a token’s experts are the most probable ones', ['selection'], { routers: ['threshold', 'dense', 'switch'] }),
  of(
    'D1 an expert of hundreds has the rank of its probability',
    ['selection'],
    { ...threshold, sizes: hundredsOfExperts },
    { share: 0.5 },
  ),
  of('D2 the smallest prefix whose mass reaches τ is selected', ['selection'], threshold),
  of('D2 a mass that is τ exactly stops', ['selection'], exact),
  of('D3 a threshold of 0 or less selects the first expert, above 1 every one', ['selection'], {
    ...threshold,
    thresholds: atEnds,
  }),
  of('D5 dense mode takes every expert and drops none', ['selection', 'dispatch'], { routers: ['dense'] }),
  of('D6 top-k takes the most probable expert, then the best noisy logits', ['selection'], {
    routers: ['topk', 'switch'],
  }),
  of('D7 hash looks the expert up', ['selection'], { routers: ['hash'] }),
  of('D8 BASE at evaluation takes the best logit', ['selection'], { routers: ['base_eval'] }),
  of('D9 BASE in training assigns as many tokens to each, for the largest total', ['selection', 'dispatch'], {
    routers: ['base_train'],
    ...small,
  }),
  of('D10 the skip expert computes nothing and is never full', 'all', { skipExpert: true }),
  of('D11 an expert keeps C tokens and no more', ['dispatch'], { capacities: withCapacity }),
  of('D12 better rank first, then higher p', ['dispatch'], {
    ...threshold,
    capacities: withCapacity,
    masks: ['absent'],
  }),
  of('D13 a dropped pair is gone', ['dispatch', 'combine'], { ...threshold, capacities: withCapacity }),
  of('D14 without a capacity factor nothing is dropped', ['dispatch'], { capacities: noDrop }),
  of('D15 padding takes no capacity', ['selection', 'dispatch'], { ...padded, capacities: withCapacity }),
  of('D16 the experts’ rows are by expert, then by token', ['experts'], { routers: softmaxRouters }),
  of('E1 an expert is a two-layer FFN', ['experts'], { activations: plain }),
  of('E2 a gated expert multiplies by an activated gate', ['experts'], { activations: gated }),
  ...[...plain, ...gated].map(activation =>
    of(`E3 ${activation} is itself`, ['experts'], { activations: [activation] }),
  ),
  of('E4 biases are optional', ['experts'], small),
  of('E5 experts without tokens cost nothing', ['experts', 'combine'], idle),
  of('C1 y is the weighted sum of what the kept experts say', ['experts', 'combine'], {}),
  of('C2 a token that lost all of its experts has y = 0', ['combine'], {
    capacities: fc.constant({ capacityFactor: 0, minCapacity: 1 }),
  }),
  of('C3 the output bias is inside the weighting', ['experts', 'combine'], {
    routers: softmaxRouters,
    capacities: noDrop,
  }),
  of('C4 the weight is sigmoid(z) for BASE and 1 for hash', ['dispatch', 'combine'], {
    routers: [...base, 'hash'],
    ...small,
  }),
  of('L1 the loss is E · Σ mean p · share of first choices', ['loss'], { routers: softmaxRouters }),
  of('L2 the loss is 1 at balance and E at collapse', ['loss'], {
    routers: softmaxRouters,
    logits: ['level', 'saturated'],
  }),
  of('L3 first choices are counted before capacity', ['loss'], { routers: softmaxRouters, capacities: withCapacity }),
  of('L4 hash and BASE have no loss', ['loss'], { routers: [...base, 'hash'], ...small }),
];

const BEHAVIOUR: readonly Property[] = [
  of(
    'R4 the same call again gives the same, within the bounds, and leaves its inputs alone',
    'behaviour',
    {},
    { behaviours: ['repeat'], share: 0.5 },
  ),
  of('R4 a call that overflows spoils no later one', 'behaviour', small, { behaviours: ['poison'], share: 0.5 }),
  of(
    'C1 without drops a token gets what it gets alone, within the bounds',
    'behaviour',
    { capacities: noDrop },
    { behaviours: ['batch'], share: 0.5 },
  ),
];

const GRADIENTS: readonly Property[] = [
  of('G1 decisions are constants', 'gradients', { ...threshold, capacities: withCapacity }),
  of('G2 gradients flow through the combine weight and the softmax', 'gradients', {
    routers: softmaxRouters,
    capacities: noDrop,
  }),
  of('G3 gradients flow through the kept experts', 'gradients', {}),
  of('G4 BASE: through the sigmoid', 'gradients', { routers: base, ...small }),
  of('G5 hash: no router, no gradient for one', 'gradients', { routers: ['hash'] }),
  of('G6 dropped and padded: none', 'gradients', { ...padded, capacities: withCapacity }),
  of('G7 the slope of relu at 0 is 0', 'gradients', {
    activations: ['relu'],
    logits: ['tied', 'negative', 'saturated'],
  }),
];

/** Those of the forward and of behaviour; the gradients' too, if they are wanted. */
export function propertiesOf(gradients: boolean): readonly Property[] {
  return [...FORWARD, ...BEHAVIOUR, ...(gradients ? GRADIENTS : [])];
}
