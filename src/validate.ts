/** The door: bad input is refused here with one clear line; the stages inside trust what passed. */
import { activations } from './activations.js';
import { checkObject, finite, integer, oneOf, show } from './check.js';
import { numColumns, routers } from './selection/routers.js';
import { numRealTokens } from './selection/selection.js';
import type { ActivationName, Config, Matrix, RouterName, Routing, RoutingInputs, Weights } from './types.js';

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
  const { numExperts } = config;
  const { gated } = activations[config.activation];
  if (!Array.isArray(up) || up.length !== numExperts) {
    throw new RangeError(`"weights.up" expected ${numExperts} matrices (config.numExperts), got ${count(up)}`);
  }
  if (gated !== (gate !== undefined)) {
    const expected = gated ? `${numExperts} matrices` : 'nothing';
    throw new TypeError(
      `"weights.gate" expected ${expected} for activation "${config.activation}", got ${count(gate)}`,
    );
  }
  if (gateBias && !gated) throw new TypeError('"weights.gateBias" expected nothing without a gate, got a matrix');
  checkMatrix('weights.up[0]', up[0]);
  const { rows: dFf, cols: dModel } = up[0];
  if (dFf < 1 || dModel < 1)
    throw new RangeError(`"weights.up[0]" expected at least one row and column, got ${shape(up[0])}`);
  checkMatrix('weights.router', router, [config.router === 'hash' ? 0 : numColumns(config), dModel], 'E x d_model');
  const perExpert = (name: string, list: readonly Matrix[] | undefined, rows: number, cols: number, words: string) => {
    if (list?.length !== numExperts)
      throw new RangeError(`"${name}" expected ${numExperts} matrices, got ${count(list)}`);
    list.forEach((a, e) => {
      checkMatrix(`${name}[${e}]`, a, [rows, cols], words);
    });
  };
  perExpert('weights.up', up, dFf, dModel, 'd_ff x d_model');
  if (gate) perExpert('weights.gate', gate, dFf, dModel, 'd_ff x d_model');
  perExpert('weights.down', down, dModel, dFf, 'd_model x d_ff');
  if (upBias) checkMatrix('weights.upBias', upBias, [numExperts, dFf], 'E x d_ff');
  if (gateBias) checkMatrix('weights.gateBias', gateBias, [numExperts, dFf], 'E x d_ff');
  if (downBias) checkMatrix('weights.downBias', downBias, [numExperts, dModel], 'E x d_model');
}

/** The tokens of one call, and what its router needs besides them. */
export function checkInputs(x: Matrix, dModel: number, config: Config, inputs: RoutingInputs): void {
  checkMatrix('x', x, [undefined, dModel], 'T x d_model');
  checkObject('inputs', inputs);
  const { noise, tokenIds, hashTable, tokenMask } = inputs;
  const numTokens = x.rows;
  if (tokenMask) indices('inputs.tokenMask', tokenMask, 2, numTokens);
  if (config.router === 'topk' && noise) checkMatrix('inputs.noise', noise, [numTokens, numColumns(config)], 'T x E');
  if (config.router === 'hash') {
    indices('inputs.hashTable', hashTable, numColumns(config));
    indices('inputs.tokenIds', tokenIds, hashTable!.length, numTokens);
  }
  const numReal = numRealTokens(numTokens, tokenMask);
  if (config.router === 'base_train' && numReal % numColumns(config) !== 0) {
    throw new RangeError(
      `"x" expected tokens in a multiple of the ${numColumns(config)} experts (base_train), got ${numReal}`,
    );
  }
}

/** Finite x and Wr whose products overflow are refused too: no route without logits (rule R4). */
export function checkRouting({ logits }: Routing): void {
  checkMatrix('logits', logits);
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
function indices(name: string, values: ArrayLike<number> | undefined, bound: number, length?: number): void {
  if (values === undefined) throw new TypeError(`"${name}" expected integers, got undefined`);
  if (length !== undefined && values.length !== length) {
    throw new RangeError(`"${name}" expected ${length} values (T), got ${values.length}`);
  }
  const bad = Array.from(values).findIndex(value => !(Number.isInteger(value) && value >= 0 && value < bound));
  if (bad >= 0)
    throw new RangeError(`"${name}" expected integers from 0 to ${bound - 1}, got ${values[bad]} at [${bad}]`);
}

function count(list: readonly unknown[] | undefined): string {
  return list === undefined ? 'none' : String(list.length);
}

function shape(a: Matrix): string {
  return `[${a.rows}, ${a.cols}]`;
}
