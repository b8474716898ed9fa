/** The door: every kind of bad input is refused before anything runs, by one line that names it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Backend, backward, type Config, checkLayer, forward, type Matrix, reference } from 'xmoe';
import { matrixOf } from 'xmoe/cases';
import { type Layer, layers, noDrop, routerNames, type Wanted } from 'xmoe/spec';
import { property } from './property.js';
import { variablesOf } from './slopes.js';

/** A call as a caller without types could make it. */
interface Call {
  readonly x: unknown;
  readonly weights: unknown;
  readonly config: unknown;
  readonly inputs: unknown;
}

/** A layer made bad in one place. `place` chooses which, where there are several. */
interface Fault {
  readonly wanted?: Wanted;
  readonly spoil: (layer: Layer, place: number) => Partial<Call> | undefined;
  readonly error: typeof TypeError | typeof RangeError;
  /** The whole message, or its shape. */
  readonly message: (layer: Layer, place: number) => string | RegExp;
}

/** A backend of which no stage may run. */
const sealed: Backend = {
  ...reference,
  route: () => assert.fail('a stage ran'),
};

/** The error must be of that very class, of the given message, and say what was expected and what came. */
function assertRefused(call: () => void, { error, message }: Fault, layer: Layer, place: number): void {
  assert.throws(call, (thrown: Error) => {
    assert.equal(thrown.constructor, error, `${thrown.name}: ${thrown.message}`);
    assert.match(thrown.message, /^"[^"]+" expected .+, got .+$/s);
    const expected = message(layer, place);
    if (typeof expected === 'string') assert.equal(thrown.message, expected);
    else assert.match(thrown.message, expected);
    return true;
  });
}

function changedConfig(change: Record<string, unknown>): Fault['spoil'] {
  return ({ config }) => ({ config: { ...config, ...change } });
}

function changedInputs(change: (layer: Layer, place: number) => Record<string, unknown>): Fault['spoil'] {
  return (layer, place) => ({ inputs: { ...layer.inputs, ...change(layer, place) } });
}

/** The layer's matrices by the names that an error gives them. */
function matricesOf(layer: Layer): { name: string; matrix: Matrix; replaced: (a: unknown) => Partial<Call> }[] {
  return variablesOf(layer).flatMap(({ name, values, replaced }) =>
    values.map((matrix, e) => {
      const isList = name === 'up' || name === 'down' || name === 'gate';
      return {
        name: name === 'x' ? 'x' : `weights.${name}${isList ? `[${e}]` : ''}`,
        matrix,
        replaced: (a: unknown) => replaced(values.map((old, i) => (i === e ? (a as Matrix) : old))) as Partial<Call>,
      };
    }),
  );
}

/** One of the matrices that have elements, and one of its elements. */
function elementOf(layer: Layer, place: number) {
  const filled = matricesOf(layer).filter(({ matrix }) => matrix.data.length > 0);
  const chosen = filled[place % filled.length];
  const index = place % chosen.matrix.data.length;
  const { cols } = chosen.matrix;
  return { ...chosen, index, at: `[${Math.floor(index / cols)}, ${index % cols}]` };
}

function withValue(a: Matrix, index: number, value: number): Matrix {
  const data = a.data.slice();
  data[index] = value;
  return { ...a, data };
}

const nonFinite = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];

const faults: Record<string, Fault> = {
  'a number that is not finite, in x or a weight': {
    spoil: (layer, place) => {
      const { matrix, index, replaced } = elementOf(layer, place);
      return replaced(withValue(matrix, index, nonFinite[place % 3]));
    },
    error: RangeError,
    message: (layer, place) => {
      const { name, at } = elementOf(layer, place);
      return `"${name}" expected finite values, got ${nonFinite[place % 3]} at ${at}`;
    },
  },
  'a matrix that is transposed': {
    spoil: (layer, place) => {
      const { matrix, replaced } = elementOf(layer, place);
      return matrix.rows === matrix.cols ? undefined : replaced({ ...matrix, rows: matrix.cols, cols: matrix.rows });
    },
    error: RangeError,
    message: () => /^"(x|weights\.\w+(\[\d+\])?)" expected shape \[(T|\d+), \d+\] \([\w ]+\), got \[\d+, \d+\]$/,
  },
  'a matrix with one more row': {
    spoil: (layer, place) => {
      const { name, matrix, replaced } = elementOf(layer, place);
      return name === 'x' ? undefined : replaced(matrixOf(matrix.rows + 1, matrix.cols, () => 0));
    },
    error: RangeError,
    message: (layer, place) => {
      const { name, matrix } = elementOf(layer, place);
      // the first expert says what m is: one more row there makes another matrix the odd one
      if (name === 'weights.up[0]') return /^"weights\.(up\[1\]|gate\[0\]|down\[0\])" expected shape/;
      const words = {
        router: 'E x d_model',
        up: 'd_ff x d_model',
        gate: 'd_ff x d_model',
        down: 'd_model x d_ff',
        upBias: 'E x d_ff',
        gateBias: 'E x d_ff',
        downBias: 'E x d_model',
      }[name.slice('weights.'.length).replace(/\[.*/, '')];
      const { rows, cols } = matrix;
      return `"${name}" expected shape [${rows}, ${cols}] (${words}), got [${rows + 1}, ${cols}]`;
    },
  },
  'a matrix with a value too few': {
    spoil: (layer, place) => {
      const { matrix, replaced } = elementOf(layer, place);
      return replaced({ ...matrix, data: matrix.data.slice(1) });
    },
    error: RangeError,
    message: (layer, place) => {
      const { name, matrix } = elementOf(layer, place);
      const { rows, cols } = matrix;
      return `"${name}" expected ${rows * cols} values for shape [${rows}, ${cols}], got ${rows * cols - 1}`;
    },
  },
  'something else than a matrix': {
    spoil: (layer, place) => {
      const others = [3, 'x', [[1, 2]], { rows: 1, cols: 1, data: [1] }];
      return elementOf(layer, place).replaced(others[place % others.length]);
    },
    error: TypeError,
    message: (layer, place) => {
      const { name } = elementOf(layer, place);
      return new RegExp(
        `^"${name.replace(/[.[\]]/g, '\\$&')}" expected a matrix .*, got (3|"x"|an object|a list of \\d+)$`,
      );
    },
  },
  'no x': {
    spoil: (_, place) => ({ x: place % 2 ? undefined : null }),
    error: TypeError,
    message: (_, place) => new RegExp(`^"x" expected a matrix .*, got ${place % 2 ? 'none' : null}$`),
  },
  'x with a fraction of a row': {
    spoil: ({ x }) => ({ x: { ...x, rows: x.rows + 0.5 } }),
    error: RangeError,
    message: ({ x }) => `"x.rows" expected an integer of at least 0, got ${x.rows + 0.5}`,
  },
  'x with a negative number of rows': {
    spoil: ({ x }) => ({ x: { ...x, rows: -1 } }),
    error: RangeError,
    message: () => '"x.rows" expected an integer of at least 0, got -1',
  },
  'an expert too few': {
    spoil: ({ weights }) => ({ weights: { ...weights, up: weights.up.slice(1) } }),
    error: RangeError,
    message: ({ config: { numExperts: n } }) => `"weights.up" expected ${n} matrices (numExperts), got ${n - 1}`,
  },
  'a down projection too many': {
    spoil: ({ weights }) => ({ weights: { ...weights, down: [...weights.down, weights.down[0]] } }),
    error: RangeError,
    message: ({ config: { numExperts: n } }) => `"weights.down" expected ${n} matrices (numExperts), got ${n + 1}`,
  },
  'a gate that is missing': {
    wanted: { activations: ['swiglu', 'geglu'] },
    spoil: ({ weights: { gate: _, ...weights } }) => ({ weights }),
    error: TypeError,
    message: ({ config: { numExperts: n } }) => `"weights.gate" expected a list of ${n} matrices, got none`,
  },
  'a gate that nothing uses': {
    wanted: { activations: ['relu', 'gelu', 'gelu_tanh', 'silu'] },
    spoil: ({ weights }) => ({ weights: { ...weights, gate: weights.up } }),
    error: TypeError,
    message: ({ config: { numExperts: n, activation } }) =>
      `"weights.gate" expected nothing for activation "${activation}", got a list of ${n}`,
  },
  'a gate bias that nothing uses': {
    wanted: { activations: ['relu', 'gelu', 'gelu_tanh', 'silu'] },
    spoil: ({ weights }) => ({ weights: { ...weights, gateBias: matrixOf(1, 1, () => 0) } }),
    error: TypeError,
    message: () => /^"weights\.gateBias" expected nothing for activation ".*", got an object$/,
  },
  'a router of that name': {
    spoil: changedConfig({ router: 'softmax' }),
    error: RangeError,
    message: () => `"config.router" expected ${routerNames.join(' | ')}, got "softmax"`,
  },
  'a router that no name says': {
    spoil: changedConfig({ router: 7 }),
    error: TypeError,
    message: () => /^"config\.router" expected .*, got 7$/,
  },
  'an activation of that name': {
    spoil: changedConfig({ activation: 'tanh' }),
    error: RangeError,
    message: () => '"config.activation" expected relu | gelu | gelu_tanh | silu | swiglu | geglu, got "tanh"',
  },
  'no expert': {
    spoil: changedConfig({ numExperts: 0 }),
    error: RangeError,
    message: () => '"config.numExperts" expected an integer of at least 1, got 0',
  },
  'half an expert': {
    spoil: changedConfig({ numExperts: 1.5 }),
    error: RangeError,
    message: () => '"config.numExperts" expected an integer of at least 1, got 1.5',
  },
  'a number of experts in words': {
    spoil: changedConfig({ numExperts: '4' }),
    error: TypeError,
    message: () => '"config.numExperts" expected an integer of at least 1, got "4"',
  },
  'a skip expert that is neither true nor false': {
    spoil: changedConfig({ skipExpert: 1 }),
    error: TypeError,
    message: () => '"config.skipExpert" expected true | false, got 1',
  },
  'a threshold that is missing': {
    wanted: { routers: ['threshold'] },
    spoil: changedConfig({ threshold: undefined }),
    error: TypeError,
    message: () => '"config.threshold (τ)" expected a finite number, got none',
  },
  'a threshold that is not finite': {
    wanted: { routers: ['threshold'] },
    spoil: ({ config }, place) => ({ config: { ...config, threshold: nonFinite[place % 3] } }),
    error: RangeError,
    message: (_, place) => `"config.threshold (τ)" expected a finite number, got ${nonFinite[place % 3]}`,
  },
  'a k of 0': {
    wanted: { routers: ['topk'], skipExpert: false },
    spoil: changedConfig({ topK: 0 }),
    error: RangeError,
    message: ({ config: { numExperts: n } }) => `"config.topK" expected an integer from 1 to ${n}, got 0`,
  },
  'a k of more than the experts': {
    wanted: { routers: ['topk'], skipExpert: true },
    spoil: ({ config }) => ({ config: { ...config, topK: config.numExperts + 2 } }),
    error: RangeError,
    message: ({ config: { numExperts: n } }) => `"config.topK" expected an integer from 1 to ${n + 1}, got ${n + 2}`,
  },
  'a capacity factor that is missing': {
    spoil: changedConfig({ capacityFactor: undefined }),
    error: TypeError,
    message: () => /^"config\.capacityFactor .*" expected a finite number of at least 0, got none$/,
  },
  'a negative capacity factor': {
    spoil: changedConfig({ capacityFactor: -0.5 }),
    error: RangeError,
    message: () => /^"config\.capacityFactor .*" expected a finite number of at least 0, got -0\.5$/,
  },
  'a negative minimum capacity': {
    spoil: changedConfig({ minCapacity: -1 }),
    error: RangeError,
    message: () => '"config.minCapacity" expected an integer of at least 0, got -1',
  },
  'an α that is not finite': {
    spoil: changedConfig({ auxLossCoef: Number.NaN }),
    error: RangeError,
    message: () => '"config.auxLossCoef (α)" expected a finite number, got NaN',
  },
  'a token mask that is too long': {
    spoil: changedInputs(({ x }) => ({ tokenMask: new Uint8Array(x.rows + 1) })),
    error: RangeError,
    message: ({ x }) => `"inputs.tokenMask" expected ${x.rows} values (T), got ${x.rows + 1}`,
  },
  'a token mask with a 2': {
    spoil: changedInputs(({ x }, place) => ({
      tokenMask: new Uint8Array(x.rows).fill(2, place % Math.max(1, x.rows)),
    })),
    error: RangeError,
    message: ({ x }, place) =>
      `"inputs.tokenMask" expected integers from 0 to 1, got 2 at [${place % Math.max(1, x.rows)}]`,
  },
  'noise of another shape': {
    wanted: { routers: ['topk'], skipExpert: false },
    spoil: changedInputs(({ x, config }) => ({ noise: matrixOf(x.rows, config.numExperts + 1, () => 0) })),
    error: RangeError,
    message: ({ x, config: { numExperts: n } }) =>
      `"inputs.noise" expected shape [${x.rows}, ${n}] (T x E), got [${x.rows}, ${n + 1}]`,
  },
  'noise that is not finite': {
    wanted: { routers: ['topk'], skipExpert: false },
    spoil: changedInputs(({ x, config }) => ({ noise: matrixOf(x.rows, config.numExperts, () => Number.NaN) })),
    error: RangeError,
    message: () => '"inputs.noise" expected finite values, got NaN at [0, 0]',
  },
  'token ids that are missing': {
    wanted: { routers: ['hash'] },
    spoil: changedInputs(() => ({ tokenIds: undefined })),
    error: TypeError,
    message: () => '"inputs.tokenIds" expected Int32Array, got none',
  },
  'a hash table that is missing': {
    wanted: { routers: ['hash'] },
    spoil: changedInputs(() => ({ hashTable: undefined })),
    error: TypeError,
    message: () => '"inputs.hashTable" expected Int32Array, got none',
  },
  'a token id outside the table': {
    wanted: { routers: ['hash'] },
    spoil: changedInputs(({ x, inputs }) => ({ tokenIds: new Int32Array(x.rows).fill(inputs.hashTable!.length) })),
    error: RangeError,
    message: ({ inputs: { hashTable } }) =>
      `"inputs.tokenIds" expected integers from 0 to ${hashTable!.length - 1}, got ${hashTable!.length} at [0]`,
  },
  'an expert outside the layer in the table': {
    wanted: { routers: ['hash'] },
    spoil: changedInputs(({ inputs }) => ({ hashTable: inputs.hashTable!.map(() => -1) })),
    error: RangeError,
    message: ({ config: { numExperts: n, skipExpert } }) =>
      `"inputs.hashTable" expected integers from 0 to ${n - (skipExpert ? 0 : 1)}, got -1 at [0]`,
  },
  'tokens that do not fill the experts of BASE': {
    wanted: { routers: ['base_train'], masks: ['absent'], skipExpert: false },
    spoil: ({ x, config }) =>
      config.numExperts === 1 ? undefined : { x: matrixOf(x.rows + 1, x.cols, () => 0), inputs: {} },
    error: RangeError,
    message: ({ x, config: { numExperts: n } }) =>
      `"x" expected tokens in a multiple of the ${n} experts (base_train), got ${x.rows + 1}`,
  },
};

/** x needs a token for its values to be spoilt; a layer without any has nothing to say of them. */
function spoilt({ spoil, wanted }: Fault) {
  return fc.tuple(layers({ ...wanted, large: false, maxSize: 5 }), fc.nat({ max: 10 ** 6 })).map(([layer, place]) => ({
    layer,
    place,
    change: layer.x.rows === 0 ? undefined : spoil(layer, place),
  }));
}

for (const [name, fault] of Object.entries(faults)) {
  property(
    `R4 refuses ${name}`,
    spoilt(fault),
    ({ layer, place, change }, reach) => {
      if (change === undefined) return;
      reach('refused');
      const { x, weights, config, inputs } = { ...layer, ...change } as Layer;
      assertRefused(() => forward(sealed, x, weights, config, inputs), fault, layer, place);
      if ('weights' in change || 'config' in change) {
        const isOfLayer = !('x' in change) || change.x === layer.x;
        if (isOfLayer) assertRefused(() => checkLayer(weights, config), fault, layer, place);
      }
    },
    ['refused'],
    { share: 0.25 },
  );
}

const overflow: Fault = {
  spoil: ({ x, weights }) => ({
    x: matrixOf(x.rows, x.cols, () => 1e200),
    weights: { ...weights, router: matrixOf(weights.router.rows, weights.router.cols, () => -1e200) },
  }),
  error: RangeError,
  message: () => '"logits" expected finite values, got -Infinity at [0, 0]',
};

property(
  'R4 refuses logits that overflow',
  spoilt({ ...overflow, wanted: { routers: routerNames.filter(router => router !== 'hash') } }),
  ({ layer, place, change }, reach) => {
    if (change === undefined) return;
    reach('refused');
    const { x, weights, config, inputs } = { ...layer, ...change } as Layer;
    const backend: Backend = { ...reference, dispatch: () => assert.fail('a stage ran') };
    assertRefused(() => forward(backend, x, weights, config, inputs), overflow, layer, place);
  },
  ['refused'],
  { share: 0.25 },
);

const gradYFaults: Record<string, Fault & { readonly gradY: (layer: Layer) => unknown }> = {
  'a cotangent of another shape': {
    gradY: ({ x }) => matrixOf(x.rows, x.cols + 1, () => 0),
    spoil: () => ({}),
    error: RangeError,
    message: ({ x: { rows, cols } }) =>
      `"gradY" expected shape [${rows}, ${cols}] (T x d_model), got [${rows}, ${cols + 1}]`,
  },
  'a cotangent that is not finite': {
    gradY: ({ x }) => matrixOf(x.rows, x.cols, () => Number.NaN),
    spoil: () => ({}),
    error: RangeError,
    message: () => '"gradY" expected finite values, got NaN at [0, 0]',
  },
  'no cotangent': {
    gradY: () => undefined,
    spoil: () => ({}),
    error: TypeError,
    message: () => /^"gradY" expected a matrix .*, got none$/,
  },
};

for (const [name, fault] of Object.entries(gradYFaults)) {
  property(
    `R4 refuses ${name}`,
    spoilt(fault),
    ({ layer, place, change }, reach) => {
      if (change === undefined) return;
      reach('refused');
      const { x, weights, config, inputs } = layer;
      const trace = forward(reference, x, weights, config, inputs);
      const call = () => backward(trace, x, weights, config, fault.gradY(layer) as Matrix, inputs);
      assertRefused(call, fault, layer, place);
    },
    ['refused'],
    { share: 0.25 },
  );
}

property(
  'R4 accepts every layer of these generators, in float64 and float32',
  layers(),
  ({ x, weights, config, inputs }, reach) => {
    checkLayer(weights, config);
    const trace = forward(reference, x, weights, config as Config, inputs);
    reach(x.data instanceof Float32Array ? 'float32' : 'float64');
    for (const a of [trace.y, trace.experts.out, trace.routing.probs]) assert.ok(a.data instanceof Float64Array);
    assert.ok(trace.y.data.every(Number.isFinite));
  },
  ['float32', 'float64'],
);

/** Wrong kinds that no type checker saw. */
const untyped: [string, (layer: Layer) => object, RegExp][] = [
  ['no weights', () => ({ weights: undefined }), /^"weights" expected an object, got none$/],
  ['no config', () => ({ config: null }), /^"config" expected an object, got null$/],
  ['inputs of null', () => ({ inputs: null }), /^"inputs" expected an object, got null$/],
  [
    'one matrix for all experts',
    l => ({ weights: { ...l.weights, up: l.weights.up[0] } }),
    /^"weights.up" expected a list of \d+ matrices, got an object$/,
  ],
  [
    'a bias of null',
    l => ({ weights: { ...l.weights, upBias: null } }),
    /^"weights.upBias" expected a matrix .*, got null$/,
  ],
  ['a mask of null', () => ({ inputs: { tokenMask: null } }), /^"inputs.tokenMask" expected Uint8Array, got null$/],
  [
    'a mask that is a list',
    l => ({ inputs: { tokenMask: Array(l.x.rows).fill(1) } }),
    /^"inputs.tokenMask" expected Uint8Array, got a list of \d+$/,
  ],
];

for (const [what, spoil, message] of untyped) {
  test(`R4 refuses ${what}`, () => {
    const [layer] = fc.sample(layers({ routers: ['threshold'], capacities: noDrop, masks: ['absent'] }), {
      numRuns: 1,
      seed: 1,
    });
    const { x, weights, config, inputs } = { ...layer, ...spoil(layer) } as Layer;
    assert.throws(() => forward(reference, x, weights, config, inputs), { name: 'TypeError', message });
  });
}

test('R4 refuses the trace of another call', () => {
  const [one, other] = fc
    .sample(layers({ capacities: noDrop, masks: ['absent'] }), { numRuns: 20, seed: 2 })
    .filter(({ x }, i, list) => list.findIndex(l => l.x.rows === x.rows) === i);
  const trace = forward(reference, other.x, other.weights, other.config, other.inputs);
  assert.throws(
    () => backward(trace, one.x, one.weights, one.config, one.gradY, one.inputs),
    /^RangeError: "trace.y" expected the shape of x/,
  );
});
