/** The door: bad input is refused here with one clear line; the stages inside trust what passed. */
import { activations } from './activations.js';
import { checkObject, finite, integer, oneOf, show, unexpected } from './check.js';
import { numColumns, routers } from './selection/routers.js';
import { numRealTokens } from './selection/selection.js';
import type { ActivationName, Config, Matrix, RouterName, Routing, RoutingInputs, Trace, Weights } from './types.js';

/** Weights and config that fit together, finite throughout. */
export function checkLayer(weights: Weights, config: Config): void {
  checkConfig(config);
  checkWeights(weights, config);
}

/** A whole call: weights, config, tokens and, where there is one, the cotangent. */
export function checkCall(x: Matrix, weights: Weights, config: Config, inputs: RoutingInputs, gradY?: Matrix): void {
  checkLayer(weights, config);
  checkInputs(x, weights.up[0].cols, config, inputs);
  if (gradY) checkGradY(gradY, x);
}

function checkConfig(config: Config): void {
  checkObject('config', config);
  oneOf('config.router', config.router, Object.keys(routers) as RouterName[]);
  oneOf('config.activation', config.activation, Object.keys(activations) as ActivationName[]);
  integer('config.numExperts', config.numExperts, 1);
  if (config.skipExpert !== undefined) oneOf('config.skipExpert', config.skipExpert, [true, false]);
  if (config.router === 'threshold') finite('config.threshold (τ)', config.threshold);
  if (config.router === 'topk') integer('config.topK', config.topK, 1, numColumns(config));
  if (config.capacityFactor !== null)
    finite('config.capacityFactor (γ, or null for no drop)', config.capacityFactor, { min: 0 });
  if (config.minCapacity !== undefined) integer('config.minCapacity', config.minCapacity, 0);
  if (config.auxLossCoef !== undefined) finite('config.auxLossCoef (α)', config.auxLossCoef);
}

function checkWeights(weights: Weights, config: Config): void {
  checkObject('weights', weights);
  const { router, up, upBias, gate, gateBias, down, downBias } = weights;
  const { numExperts, activation } = config;
  checkList('weights.up', up, numExperts);
  checkMatrix('weights.up[0]', up[0]);
  const { rows: dFf, cols: dModel } = up[0];
  integer('weights.up[0].rows', dFf, 1);
  integer('weights.up[0].cols', dModel, 1);
  const experts = (name: string, list: readonly Matrix[], rows: number, cols: number, words: string) => {
    checkList(name, list, numExperts);
    list.forEach((a, e) => {
      checkMatrix(`${name}[${e}]`, a, [rows, cols], words);
    });
  };
  const bias = (name: string, a: Matrix | undefined, cols: number, words: string) => {
    if (a !== undefined) checkMatrix(name, a, [numExperts, cols], words);
  };
  checkMatrix('weights.router', router, [config.router === 'hash' ? 0 : numColumns(config), dModel], 'E x d_model');
  experts('weights.up', up, dFf, dModel, 'd_ff x d_model');
  experts('weights.down', down, dModel, dFf, 'd_model x d_ff');
  bias('weights.upBias', upBias, dFf, 'E x d_ff');
  bias('weights.downBias', downBias, dModel, 'E x d_model');
  if (activations[activation].gated) {
    experts('weights.gate', gate!, dFf, dModel, 'd_ff x d_model');
    bias('weights.gateBias', gateBias, dFf, 'E x d_ff');
  } else {
    for (const [name, value] of Object.entries({ gate, gateBias })) {
      if (value === undefined) continue;
      throw unexpected(TypeError, `weights.${name}`, `nothing for activation "${activation}"`, show(value));
    }
  }
}

/** The tokens of one call, and what its router needs besides them. */
export function checkInputs(x: Matrix, dModel: number, config: Config, inputs: RoutingInputs): void {
  checkMatrix('x', x, [undefined, dModel], 'T x d_model');
  checkObject('inputs', inputs);
  const { noise, tokenIds, hashTable, tokenMask } = inputs;
  const numTokens = x.rows;
  if (tokenMask !== undefined) checkIndices('inputs.tokenMask', tokenMask, Uint8Array, 2, numTokens);
  if (config.router === 'topk' && noise !== undefined) {
    checkMatrix('inputs.noise', noise, [numTokens, numColumns(config)], 'T x E');
  }
  if (config.router === 'hash') {
    checkIndices('inputs.hashTable', hashTable, Int32Array, numColumns(config));
    checkIndices('inputs.tokenIds', tokenIds, Int32Array, hashTable!.length, numTokens);
  }
  const numReal = numRealTokens(numTokens, tokenMask);
  if (config.router === 'base_train' && numReal % numColumns(config) !== 0) {
    const expected = `tokens in a multiple of the ${numColumns(config)} experts (base_train)`;
    throw unexpected(RangeError, 'x', expected, String(numReal));
  }
}

/** Finite x and Wr whose products overflow are refused too: no route without logits (rule R4). */
export function checkRouting({ logits }: Routing): void {
  checkMatrix('logits', logits);
}

/** A cotangent, and a trace that is of this very call. */
export function checkBackward(gradY: Matrix, trace: Trace, x: Matrix): void {
  checkObject('trace', trace);
  checkGradY(gradY, x);
  if (trace.y.rows !== x.rows || trace.y.cols !== x.cols) {
    throw unexpected(RangeError, 'trace.y', `the shape of x ${shape(x)}`, shape(trace.y));
  }
}

export function checkGradY(gradY: Matrix, x: Matrix): void {
  checkMatrix('gradY', gradY, [x.rows, x.cols], 'T x d_model');
}

/** A matrix of finite numbers, of the given shape where one is given; `undefined` is any length. */
function checkMatrix(name: string, a: Matrix, expected?: readonly [number | undefined, number], words = ''): void {
  const isFloats = a?.data instanceof Float64Array || a?.data instanceof Float32Array;
  if (!isFloats)
    throw new TypeError(
      `"${name}" expected a matrix { rows, cols, data: Float64Array | Float32Array }, got ${show(a)}`,
    );
  const { rows, cols, data } = a;
  if (expected && ((expected[0] ?? rows) !== rows || expected[1] !== cols)) {
    throw new RangeError(
      `"${name}" expected shape [${expected[0] ?? 'T'}, ${expected[1]}] (${words}), got ${shape(a)}`,
    );
  }
  integer(`${name}.rows`, rows, 0);
  integer(`${name}.cols`, cols, 0);
  if (data.length !== rows * cols) {
    throw new RangeError(`"${name}" expected ${rows * cols} values for shape ${shape(a)}, got ${data.length}`);
  }
  for (let i = 0; i < data.length; i++) {
    if (Number.isFinite(data[i])) continue;
    throw new RangeError(`"${name}" expected finite values, got ${data[i]} at [${Math.floor(i / cols)}, ${i % cols}]`);
  }
}

/** Integers from 0 up to `bound`; exactly `length` of them where that is given. */
function checkIndices(
  name: string,
  values: unknown,
  kind: typeof Uint8Array | typeof Int32Array,
  bound: number,
  length?: number,
): void {
  if (!(values instanceof kind)) throw unexpected(TypeError, name, kind.name, show(values));
  if (length !== undefined && values.length !== length) {
    throw unexpected(RangeError, name, `${length} values (T)`, String(values.length));
  }
  for (let i = 0; i < values.length; i++) {
    if (values[i] >= 0 && values[i] < bound) continue;
    const expected = bound === 0 ? 'no values, the table being empty' : `integers from 0 to ${bound - 1}`;
    throw unexpected(RangeError, name, expected, `${values[i]} at [${i}]`);
  }
}

function checkList(name: string, list: unknown, length: number): void {
  if (!Array.isArray(list)) throw unexpected(TypeError, name, `a list of ${length} matrices`, show(list));
  if (list.length !== length)
    throw unexpected(RangeError, name, `${length} matrices (numExperts)`, String(list.length));
}

function shape(a: Matrix): string {
  return `[${a.rows}, ${a.cols}]`;
}
