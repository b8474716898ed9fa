/** What somebody's module exports, as an implementation: a Backend, an Implementation, or a function of a call. */
import { show, unexpected } from '../../check.js';
import type { NamedTensor } from '../../layer-case/index.js';
import type { Backend, Matrix } from '../../types.js';
import { type Arithmetic, arithmeticNamed } from '../bounds/arithmetic.js';
import type { Implementation, LayerCall, Outputs } from '../types.js';
import { implementationOf } from './implementation.js';
import { ImplementationError } from './implementation-error.js';

/** Outputs by name: tensors, matrices, or a number for a loss. */
export type LooseOutputs =
  | ReadonlyMap<string, NamedTensor | Matrix | number>
  | Readonly<Record<string, NamedTensor | Matrix | number>>;

/** A function of a call; gradients are wanted where the call has `gradY`. */
export type LayerFunction = (call: LayerCall) => LooseOutputs | Promise<LooseOutputs>;

/**
 * @param name     what to call it, where it does not say
 * @param arithmetic what it computes in, where it is said; else what it says, and `f32` for a function
 * @throws TypeError for anything else
 */
export function adopt(exported: unknown, name: string, arithmetic?: Arithmetic): Implementation {
  if (typeof exported === 'function') {
    const run = exported as LayerFunction;
    return {
      name: run.name && run.name !== 'default' ? run.name : name,
      arithmetic: arithmetic ?? arithmeticNamed('f32'),
      run: async call => outputsOf(await run(call)),
    };
  }
  if (isObject(exported) && typeof exported.run === 'function') {
    const given = exported as Partial<Implementation> & Pick<Implementation, 'run'>;
    return {
      name: given.name ?? name,
      arithmetic: arithmetic ?? given.arithmetic ?? arithmeticNamed('f32'),
      ...(given.refuses && { refuses: call => given.refuses!(call) }),
      run: async call => outputsOf(await given.run(call)),
      close: () => given.close?.(),
    };
  }
  if (isObject(exported) && typeof exported.route === 'function') {
    return implementationOf(exported as unknown as Backend, arithmetic);
  }
  throw unexpected(TypeError, name, 'a Backend, an Implementation or a function (call) => outputs', show(exported));
}

/** @throws ImplementationError for what is no outputs */
function outputsOf(given: unknown): Outputs {
  if (!isObject(given)) throw new ImplementationError('wrote rubbish', `it gave ${show(given)} for outputs`);
  const entries = given instanceof Map ? [...given] : Object.entries(given);
  return new Map(entries.map(([name, value]) => [String(name), tensorOf(String(name), value)]));
}

function tensorOf(name: string, value: unknown): NamedTensor {
  if (typeof value === 'number') return { shape: [1], data: Float64Array.of(value) };
  const { shape, rows, cols, data } = (isObject(value) ? value : {}) as Record<string, unknown>;
  const dimensions = shape ?? [rows, cols];
  const isData = data instanceof Float64Array || data instanceof Float32Array || data instanceof Uint8Array;
  if (isShape(dimensions) && isData && dimensions.reduce((product, n) => product * n, 1) === data.length) {
    return { shape: dimensions, data };
  }
  const expected =
    '{ shape, data } or { rows, cols, data } with a Float64Array, Float32Array or Uint8Array of that size';
  throw new ImplementationError('wrote rubbish', `output "${name}" expected ${expected}, got ${show(value)}`);
}

function isShape(value: unknown): value is number[] {
  return Array.isArray(value) && value.every(n => Number.isInteger(n) && n >= 0);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
