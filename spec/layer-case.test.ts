/** Layer-case files of strangers: read whole, or refused with the name of what is wrong. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Config, type Matrix, zeros } from 'xmoe';
import { type LayerCase, readLayerCase, writeLayerCase } from 'xmoe/layer-case';
import { fromFloat64, fromIntegers, readSafetensors, type SafetensorsFile, writeSafetensors } from 'xmoe/safetensors';

const matrix = (...list: number[][]): Matrix => ({
  rows: list.length,
  cols: list[0].length,
  data: Float64Array.from(list.flat()),
});

const config: Config = {
  router: 'topk',
  numExperts: 2,
  topK: 1,
  capacityFactor: 1.25,
  minCapacity: 1,
  skipExpert: true,
  activation: 'swiglu',
  auxLossCoef: 0.01,
};

/** Every part that a case can have, three tokens, two experts and a skip expert. */
const whole: LayerCase = {
  name: 'whole',
  config,
  x: matrix([1, 2], [3, 4], [5, 6]),
  weights: {
    router: matrix([1, 0], [0, 1], [1, 1]),
    up: [matrix([1, 2]), matrix([3, 4])],
    upBias: matrix([0.5], [0.25]),
    gate: [matrix([5, 6]), matrix([7, 8])],
    gateBias: matrix([1], [2]),
    down: [matrix([1], [2]), matrix([3], [4])],
    downBias: matrix([1, 2], [3, 4]),
  },
  inputs: {
    noise: zeros(3, 3),
    tokenMask: Uint8Array.of(1, 0, 1),
    tokenIds: Int32Array.of(0, 1, 0),
    hashTable: Int32Array.of(1, 2),
  },
  gradY: matrix([1, 0], [0, 1], [1, 1]),
  recorded: new Map([
    ['y', { shape: [3, 2], data: new Float64Array(6) }],
    ['kept', { shape: [3, 3], data: new Uint8Array(9) }],
  ]),
  dropOrderOpen: true,
};

/** The file of `whole`, changed. */
function changed(
  change: (
    tensors: Map<string, SafetensorsFile['tensors'] extends ReadonlyMap<string, infer T> ? T : never>,
    metadata: Map<string, string>,
  ) => void,
): Uint8Array {
  const file = readSafetensors(writeLayerCase(whole));
  const [tensors, metadata] = [new Map(file.tensors), new Map(file.metadata)];
  change(tensors, metadata);
  return writeSafetensors({ tensors, metadata });
}

/** The file of `whole` with other values for some keys of its config. */
function configured(keys: object): Uint8Array {
  return changed((_, metadata) => {
    metadata.set('config', JSON.stringify({ ...JSON.parse(metadata.get('config')!), ...keys }));
  });
}

test('a case with every part is the same after writing and reading', () => {
  assert.deepEqual(readLayerCase(writeLayerCase(whole)), whole);
  assert.deepEqual(readLayerCase(writeLayerCase(whole, 'F64')), whole);
  assert.deepEqual(writeLayerCase(whole), writeLayerCase(readLayerCase(writeLayerCase(whole))));
});

test('no drop is written as drop_tokens, and read from either key', () => {
  const noDrop = { ...whole, config: { ...config, capacityFactor: null } };
  assert.deepEqual(readLayerCase(writeLayerCase(noDrop)), noDrop);
  assert.equal(readLayerCase(configured({ drop_tokens: false })).config.capacityFactor, null);
  assert.equal(readLayerCase(configured({ capacity_factor: null })).config.capacityFactor, null);
});

test('a case without biases, mask and outputs has none', () => {
  const bare = changed(tensors => {
    for (const name of [...tensors.keys()]) if (/bias|mask|noise|out\.|grad|hash|ids/.test(name)) tensors.delete(name);
  });
  const { weights, inputs, recorded, gradY } = readLayerCase(bare);
  assert.deepEqual(Object.keys(weights).sort(), ['down', 'gate', 'router', 'up']);
  assert.deepEqual([inputs, recorded.size, gradY], [{}, 0, undefined]);
});

const floats = (shape: number[]) => fromFloat64(new Float64Array(shape.reduce((a, b) => a * b, 1)), shape, 'F32');

const faults: [string, Uint8Array, RegExp][] = [
  [
    'another format',
    changed((_, m) => m.set('format', 'onnx')),
    /"format" expected metadata "xmoe-layer-case\/1", got "onnx"/,
  ],
  ['no config', changed((_, m) => m.delete('config')), /"config" expected a JSON object, got none/],
  ['a config that is no object', changed((_, m) => m.set('config', '[1]')), /"config" expected a JSON object/],
  ['an unknown router', configured({ router: 'best' }), /"config.router" expected .*threshold.*, got "best"/],
  ['a router of another type', configured({ router: 7 }), /"config.router" expected a string, got 7/],
  ['an unknown activation', configured({ activation: 'tanh' }), /"config.activation" expected/],
  ['no number of experts', configured({ num_experts: null }), /"config.numExperts" expected an integer/],
  ['absurdly many experts', configured({ num_experts: 2 ** 40 }), /"weights.up" expected 1099511627776 matrices/],
  [
    'a threshold that is text',
    configured({ router: 'threshold', threshold: '0.9' }),
    /"config.threshold" expected a number/,
  ],
  ['no threshold', configured({ router: 'threshold' }), /"config.threshold \(τ\)" expected a finite number/],
  ['k above the experts', configured({ top_k: 4 }), /"config.topK" expected an integer from 1 to 3, got 4/],
  ['no capacity factor', configured({ capacity_factor: undefined, drop_tokens: true }), /"config.capacityFactor/],
  ['a stated size that is not the tensors’', configured({ num_tokens: 4 }), /numTokens 3.*got 4/],
  ['no x', changed(t => t.delete('x')), /"x" expected a tensor, got none/],
  ['no router', changed(t => t.delete('router.weight')), /"router.weight" expected a tensor, got none/],
  ['no experts', changed(t => t.delete('experts.up_proj')), /"experts.up_proj" expected a tensor, got none/],
  [
    'experts of no size',
    changed(t => t.set('experts.up_proj', floats([2 ** 20, 0, 2]))),
    /"experts.up_proj" expected experts, got shape/,
  ],
  [
    'experts without a dimension',
    changed(t => t.set('experts.up_proj', floats([2, 2]))),
    /"experts.up_proj" expected 3 dimensions/,
  ],
  ['transposed experts', changed(t => t.set('experts.up_proj', floats([2, 2, 1]))), /expected shape \[/],
  ['a gate without its activation', configured({ activation: 'silu' }), /"weights.gate" expected nothing/],
  [
    'an activation without its gate',
    changed(t => t.delete('experts.gate_proj')),
    /"weights.gate" expected a list of 2 matrices/,
  ],
  ['x of integers', changed(t => t.set('x', fromIntegers([1, 2, 3, 4, 5, 6], [3, 2], 'I32'))), /"x"/],
  [
    'a NaN in a weight',
    changed(t => t.set('router.weight', fromFloat64([0, 0, 0, Number.NaN, 0, 0], [3, 2], 'F32'))),
    /"weights.router" expected finite values, got NaN at \[1, 1\]/,
  ],
  ['noise of another shape', changed(t => t.set('noise', floats([3, 2]))), /"inputs.noise" expected shape \[3, 3\]/],
  [
    'a mask of other values',
    changed(t => t.set('token_mask', fromIntegers([1, 2, 0], [3], 'U8'))),
    /"token_mask" expected 1 = real or 0 = padding, got 2 at \[1\]/,
  ],
  [
    'a mask of another length',
    changed(t => t.set('token_mask', fromIntegers([1, 0], [2], 'U8'))),
    /"inputs.tokenMask" expected 3 values/,
  ],
  ['a cotangent of another shape', changed(t => t.set('grad.y', floats([2, 3]))), /"gradY" expected shape \[3, 2\]/],
];

for (const [what, file, message] of faults) {
  test(`a case with ${what} is refused by name`, () => {
    assert.throws(
      () => readLayerCase(file),
      (error: Error) =>
        ((error instanceof TypeError || error instanceof RangeError) && message.test(error.message)) ||
        assert.fail(String(error)),
    );
  });
}

test('hash cases: ids outside the table and experts outside the layer are refused', () => {
  const hash = { router: 'hash', skip_expert: false, num_experts: 2 };
  const without = (ids: number[], table: number[]) => {
    const file = readSafetensors(configured(hash));
    const tensors = new Map(file.tensors);
    tensors.delete('router.weight');
    tensors.set('token_ids', fromIntegers(ids, [ids.length], 'I64'));
    tensors.set('hash_table', fromIntegers(table, [table.length], 'I64'));
    return writeSafetensors({ tensors, metadata: file.metadata });
  };
  assert.equal(readLayerCase(without([0, 1, 0], [1, 0])).weights.router.rows, 0);
  assert.throws(
    () => readLayerCase(without([0, 2, 0], [1, 0])),
    /"inputs.tokenIds" expected integers from 0 to 1, got 2 at \[1\]/,
  );
  assert.throws(
    () => readLayerCase(without([0, 1, 0], [1, -1])),
    /"inputs.hashTable" expected integers from 0 to 1, got -1 at \[1\]/,
  );
});
