/** Calls of the same sizes as a given one, each simpler in one thing: an option less, or rounder numbers. */
import { capacityOf } from '../../capacity.js';
import { linear } from '../../linear.js';
import { zeros } from '../../matrix.js';
import { numColumns } from '../../selection/routers.js';
import { numRealTokens } from '../../selection/selection.js';
import type { ActivationName, Config, Matrix, RoutingInputs, Weights } from '../../types.js';
import type { LayerCall } from '../types.js';
import { withoutSkipExpert, withWidth } from './parts.js';

/** Options that the call may do without, or have in a plainer form. */
export function* plainer(call: LayerCall): Generator<LayerCall> {
  const { config, weights, inputs, gradY, x } = call;
  if (gradY) yield without(call, 'gradY');
  if (x.rows === 1 && x.cols > 1 && weights.router.rows > 0) yield asOneColumn(call);
  if (config.router !== 'dense') yield asDense(call);
  if (config.router === 'base_train') yield { ...call, config: { ...config, router: 'base_eval' } };
  for (const key of ['tokenMask', 'noise'] as const) {
    if (inputs[key]) yield { ...call, inputs: without<RoutingInputs, typeof key>(inputs, key) };
  }
  if (config.skipExpert && config.router !== 'hash') yield withoutSkipExpert(call);
  if (config.auxLossCoef) yield { ...call, config: without(config, 'auxLossCoef') };
  for (const capacity of capacities(call)) yield { ...call, config: { ...config, ...capacity } };
  for (const key of ['upBias', 'gateBias', 'downBias'] as const) {
    if (weights[key]) yield { ...call, weights: without<Weights, typeof key>(weights, key) };
  }
  if (weights.gate) {
    const activation: ActivationName = config.activation === 'geglu' ? 'gelu' : 'silu';
    const ungated = without(without(weights, 'gate'), 'gateBias');
    yield { ...call, config: { ...config, activation }, weights: ungated };
  } else if (config.activation !== 'relu') {
    yield { ...call, config: { ...config, activation: 'relu' } };
  }
  for (let topK = 1; topK < Math.min(4, config.topK ?? 0); topK++) yield { ...call, config: { ...config, topK } };
  if (config.threshold !== undefined) {
    for (const threshold of [0, 0.5, 1, 2]) {
      // never back to one that was left
      if (threshold === config.threshold) break;
      yield { ...call, config: { ...config, threshold } };
    }
  }
}

/** One token's logits from a single column: x is 1, and the router's rows are the logits. */
function asOneColumn(call: LayerCall): LayerCall {
  const narrow = withWidth(call, [0]);
  const { data } = linear(call.x, call.weights.router);
  const router = { rows: data.length, cols: 1, data: data.map(Math.fround) };
  return { ...narrow, x: { rows: 1, cols: 1, data: Float64Array.of(1) }, weights: { ...narrow.weights, router } };
}

/** Every expert for every token: no decision is left. Hash gets a router, of zeros. */
export function asDense(call: LayerCall): LayerCall {
  const { config, weights, inputs, x } = call;
  const { threshold, topK, ...others } = config;
  const { noise, tokenIds, hashTable, ...mask } = inputs;
  const router = weights.router.rows > 0 ? weights.router : zeros(numColumns(config), x.cols);
  return { ...call, config: { ...others, router: 'dense' }, inputs: mask, weights: { ...weights, router } };
}

/** The same call with rounder numbers in one tensor, or in one place of a small one; never back to what was left. */
export function* rounder(call: LayerCall): Generator<LayerCall> {
  for (const { matrices, replaced } of tensorsOf(call)) {
    const every = (holds: (v: number) => boolean) => matrices.every(a => a.data.every(holds));
    if (every(v => v === 0)) continue;
    const toAll = (round: (v: number) => number) => replaced(matrices.map(a => mapped(a, round)));
    yield toAll(() => 0);
    if (!every(Number.isInteger)) {
      yield toAll(() => 1);
      yield toAll(Math.round);
      if (!every(v => Number.isInteger(4 * v))) yield toAll(v => Math.round(4 * v) / 4);
    }
    if (matrices.length * matrices[0].data.length > SMALL) continue;
    for (let i = 0; i < matrices.length; i++) {
      for (let at = 0; at < matrices[i].data.length; at++) {
        for (const simple of simplerThan(matrices[i].data[at])) {
          yield replaced(matrices.map((a, j) => (j === i ? mapped(a, (v, k) => (k === at ? simple : v)) : a)));
        }
      }
    }
  }
}

/** Tensors of up to so many numbers are simplified number by number. */
const SMALL = 48;

function simplerThan(value: number): number[] {
  if (Number.isInteger(value)) return [0, 1].filter(simple => simple < Math.abs(value));
  return [...new Set([0, 1, Math.round(value)])];
}

/** Nothing dropped; or the capacity as a number that does not change with T and E, small ones first. */
function capacities({ config, x, inputs }: LayerCall): Pick<Config, 'capacityFactor' | 'minCapacity'>[] {
  const { capacityFactor, minCapacity = 4, numExperts } = config;
  if (capacityFactor === null) return [];
  const capacity = capacityOf(numRealTokens(x.rows, inputs.tokenMask), capacityFactor, minCapacity, numExperts);
  const isPlain = capacityFactor === 0 && minCapacity === capacity;
  const smaller = [0, 1, capacity].filter(c => c < capacity || (c === capacity && !isPlain));
  return [{ capacityFactor: null }, ...smaller.map(c => ({ capacityFactor: 0, minCapacity: c }))];
}

interface Replaceable {
  readonly matrices: readonly Matrix[];
  readonly replaced: (matrices: readonly Matrix[]) => LayerCall;
}

function tensorsOf(call: LayerCall): Replaceable[] {
  const { x, weights, inputs, gradY } = call;
  const one = (a: Matrix | undefined, put: (a: Matrix) => LayerCall): Replaceable[] =>
    a ? [{ matrices: [a], replaced: ([b]) => put(b) }] : [];
  const weight = (key: 'router' | 'upBias' | 'gateBias' | 'downBias') =>
    one(weights[key], a => ({ ...call, weights: { ...weights, [key]: a } }));
  const perExpert = (key: 'up' | 'gate' | 'down'): Replaceable[] => {
    const matrices = weights[key];
    return matrices ? [{ matrices, replaced: list => ({ ...call, weights: { ...weights, [key]: list } }) }] : [];
  };
  return [
    ...one(x, a => ({ ...call, x: a })),
    ...weight('router'),
    ...one(inputs.noise, a => ({ ...call, inputs: { ...inputs, noise: a } })),
    ...perExpert('up'),
    ...weight('upBias'),
    ...perExpert('gate'),
    ...weight('gateBias'),
    ...perExpert('down'),
    ...weight('downBias'),
    ...one(gradY, a => ({ ...call, gradY: a })),
  ];
}

function mapped(a: Matrix, f: (value: number, index: number) => number): Matrix {
  return { ...a, data: a.data.map((value: number, index: number) => f(value, index) + 0) }; // + 0: no negative zeros
}

function without<T, K extends keyof T>(object: T, key: K): Omit<T, K> {
  const { [key]: _, ...rest } = object;
  return rest;
}
