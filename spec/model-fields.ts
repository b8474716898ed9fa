/** Random small models for tests. */
import fc from 'fast-check';
import { type Fields, TINY } from './tiny-model.js';

/** The largest sizes that are drawn. */
export interface Most {
  readonly heads: number;
  readonly headWidth: number;
  readonly layers: number;
  readonly dFfDense: number;
  readonly experts: number;
  readonly dFf: number;
}

/** Every activation and router, odd head widths, with XMoE layers or without. */
export function fieldsUpTo(most: Most, contextLength: fc.Arbitrary<number>): fc.Arbitrary<Fields> {
  const upTo = (max: number) => fc.integer({ min: 1, max });
  return fc
    .record({
      heads: upTo(most.heads),
      headWidth: upTo(most.headWidth),
      max_position_embeddings: contextLength,
      num_hidden_layers: upTo(most.layers),
      intermediate_size: upTo(most.dFfDense),
      moe: fc.array(fc.boolean(), { minLength: most.layers, maxLength: most.layers }),
      num_experts: upTo(most.experts),
      moe_intermediate_size: upTo(most.dFf),
      hidden_act: fc.constantFrom('relu', 'gelu', 'gelu_tanh', 'silu', 'swiglu', 'geglu'),
      router: fc.constantFrom('threshold', 'threshold', 'dense', 'topk', 'switch', 'base_eval'),
      threshold: fc.double({ min: 0, max: 1.1, noNaN: true }),
      skip_expert: fc.boolean(),
    })
    .map(({ heads, headWidth, moe, ...rest }) => ({
      ...TINY,
      ...rest,
      num_attention_heads: heads,
      hidden_size: heads * headWidth,
      moe_layers: moe.flatMap((isMoe, l) => (isMoe && l < rest.num_hidden_layers ? [l] : [])),
      top_k: Math.min(2, rest.num_experts),
    }));
}

export interface DrawnModel {
  readonly fields: Fields;
  readonly seed: number;
  readonly ids: Uint8Array;
}

/** Models for the runtime, some whose context is several batches, some that drop tokens; and bytes for their context. */
export const models: fc.Arbitrary<DrawnModel> = fc
  .record({
    fields: fieldsUpTo(
      { heads: 4, headWidth: 9, layers: 4, dFfDense: 40, experts: 19, dFf: 19 },
      fc.oneof(fc.integer({ min: 1, max: 19 }), fc.integer({ min: 260, max: 290 })),
    ),
    more: fc.record({
      min_capacity: fc.constant(1),
      capacity_factor: fc.option(fc.double({ min: 0.1, max: 2, noNaN: true }), { freq: 3 }),
      layer_norm_eps: fc.constantFrom(1e-5, 1e-12, 0.5),
    }),
    seed: fc.nat(),
    bytes: fc.uint8Array({ minLength: 290, maxLength: 290 }),
    length: fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.constant(1)),
  })
  .map(({ fields, more, seed, bytes, length }) => {
    const ids = bytes.subarray(0, Math.ceil(length * fields.max_position_embeddings));
    return { fields: { ...fields, ...more }, seed, ids };
  });
