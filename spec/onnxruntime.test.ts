/** ONNX Runtime, where it is installed beside the bench: graphs of standard operators, and the operator MoE, conform. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ActivationName } from 'xmoe';
import { layerOfSizes } from 'xmoe/cases';
import { arithmeticNamed, conform, type StageName } from 'xmoe/oracle';
import { runtimes } from '../bench/contenders/onnxruntime.js';
import { missing, onnxruntimeGraph, onnxruntimeMoe } from './parties/onnxruntime.js';
import { conformsOnRandomCalls, type Party } from './parties/random-calls.js';

const judges: StageName[] = ['logits', 'probs', 'selection', 'dispatch', 'experts', 'combine', 'loss'];

for (const runtime of runtimes) {
  const ifInstalled =
    (make: typeof onnxruntimeGraph): Party =>
    async () =>
      missing(runtime) ?? make(runtime);
  conformsOnRandomCalls(`${runtime}, standard operators`, ifInstalled(onnxruntimeGraph), { share: 0.25, judges });
  conformsOnRandomCalls(`${runtime}, operator MoE`, ifInstalled(onnxruntimeMoe), {
    routers: ['topk', 'switch', 'dense'],
    activations: ['relu', 'gelu_tanh', 'silu', 'swiglu'],
    without: ['capacity', 'mask', 'noise', 'skip'],
    judges: ['logits', 'combine'],
  });

  test(`${runtime}: the operator MoE gives a tie to the expert of higher index`, async t => {
    const why = missing(runtime);
    if (why) return t.skip(why);
    const call = layerOfSizes(1, 4, 3, 2, { router: 'switch', activation: 'silu', logits: 'level', storage: 'f32' });
    const outputs = await onnxruntimeMoe(runtime).run(call);
    const verdicts = [0, 1, 2, 3].map(expert => {
      const selected = { shape: [1, 4], data: Uint8Array.from([0, 1, 2, 3], e => (e === expert ? 1 : 0)) };
      return conform(new Map([...outputs, ['selected', selected]]), call, arithmeticNamed('f32')).verdict;
    });
    assert.deepEqual(verdicts, ['does not conform', 'does not conform', 'does not conform', 'conforms']);
  });

  test(`${runtime}: what the operator MoE calls gelu is the one with tanh, and not ONNX's own default`, async t => {
    const why = missing(runtime);
    if (why) return t.skip(why);
    const call = layerOfSizes(9, 4, 8, 6, { router: 'topk', activation: 'gelu_tanh', noise: false, storage: 'f32' });
    const outputs = await onnxruntimeMoe(runtime).run(call);
    const verdictOf = (activation: ActivationName) =>
      conform(outputs, { ...call, config: { ...call.config, activation } }, arithmeticNamed('f32')).verdict;
    assert.deepEqual((['gelu_tanh', 'gelu'] as const).map(verdictOf), ['conforms', 'does not conform']);
  });
}
