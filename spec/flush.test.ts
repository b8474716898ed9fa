/** Hardware that takes subnormal numbers for 0, as GPUs may (WGSL, and CUDA with -ftz=true), is judged as what it is. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { forward, type Matrix, referenceF32 } from 'xmoe';
import { outputTensors } from 'xmoe/layer-case';
import { arithmeticNamed, conform, type LayerCall } from 'xmoe/oracle';

const one = (value: number): Matrix => ({ rows: 1, cols: 1, data: Float64Array.of(value) });

/** One expert that says 10, weighed by sigmoid(−x). */
const call = (x: number): LayerCall => ({
  config: { numExperts: 1, router: 'base_eval', capacityFactor: null, activation: 'relu' },
  weights: { router: one(-1), up: [one(0)], down: [one(0)], downBias: one(10) },
  x: one(x),
  inputs: {},
});

function verdictOnZero(x: number) {
  const { x: given, weights, config } = call(x);
  const outputs = outputTensors(forward(referenceF32, given, weights, config));
  return conform(outputs.set('y', { shape: [1, 1], data: Float64Array.of(0) }), call(x), arithmeticNamed('f32'));
}

test('a combine weight below the smallest normal number may be read as 0: y = 1.35e-38 may be 0', () => {
  assert.equal(verdictOnZero(89.5).verdict, 'conforms');
});

test('a weight above it may not', () => {
  assert.equal(verdictOnZero(80).blamed, 'combine');
});
