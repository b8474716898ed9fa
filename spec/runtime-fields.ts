/** Random small models for tests of the runtime. */
import fc from 'fast-check';
import { type Fields, TINY } from './tiny-model.js';

export interface DrawnModel {
  readonly fields: Fields;
  readonly seed: number;
  readonly ids: Uint8Array;
}

/** Every activation and router, odd head widths, one layer to four, with XMoE or without; and bytes for its context. */
export const models: fc.Arbitrary<DrawnModel> = fc
  .record({
    heads: fc.integer({ min: 1, max: 4 }),
    headWidth: fc.integer({ min: 1, max: 9 }),
    max_position_embeddings: fc.oneof(fc.integer({ min: 1, max: 19 }), fc.integer({ min: 260, max: 290 })),
    num_hidden_layers: fc.integer({ min: 1, max: 4 }),
    intermediate_size: fc.integer({ min: 1, max: 40 }),
    moe: fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
    num_experts: fc.integer({ min: 1, max: 19 }),
    moe_intermediate_size: fc.integer({ min: 1, max: 19 }),
    hidden_act: fc.constantFrom('relu', 'gelu', 'gelu_tanh', 'silu', 'swiglu', 'geglu'),
    router: fc.constantFrom('threshold', 'threshold', 'dense', 'topk', 'switch', 'base_eval'),
    threshold: fc.double({ min: 0, max: 1.1, noNaN: true }),
    skip_expert: fc.boolean(),
    capacity_factor: fc.option(fc.double({ min: 0.1, max: 2, noNaN: true }), { freq: 3 }),
    layer_norm_eps: fc.constantFrom(1e-5, 1e-12, 0.5),
    seed: fc.nat(),
    bytes: fc.uint8Array({ minLength: 290, maxLength: 290 }),
    length: fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.constant(1)),
  })
  .map(({ heads, headWidth, moe, seed, bytes, length, ...rest }) => {
    const { num_hidden_layers: numLayers, num_experts: numExperts, max_position_embeddings: contextLength } = rest;
    const fields = {
      ...TINY,
      ...rest,
      num_attention_heads: heads,
      hidden_size: heads * headWidth,
      moe_layers: moe.flatMap((isMoe, l) => (isMoe && l < numLayers ? [l] : [])),
      top_k: Math.min(2, numExperts),
      min_capacity: 1,
    };
    return { fields, seed, ids: bytes.subarray(0, Math.ceil(length * contextLength)) };
  });
