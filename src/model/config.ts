/** What a model file says of its model: the JSON in its metadata, field names as in Hugging Face configurations. */
import { activations } from '../activations.js';
import { finite, integer, oneOf, parseJsonObject, show, unexpected } from '../check.js';
import type { ActivationName, Config, RouterName } from '../types.js';

/** Sizes of a byte-level GPT, some of whose layers hold an XMoE layer. */
export interface ModelConfig {
  /** `max_position_embeddings`: the positions learned, so the longest window. */
  readonly contextLength: number;
  /** `hidden_size`: d. */
  readonly dModel: number;
  /** `num_hidden_layers`. */
  readonly numLayers: number;
  /** `num_attention_heads`; a divisor of d. */
  readonly numHeads: number;
  /** `intermediate_size`: D, the width of the dense FFN. */
  readonly dFfDense: number;
  /** `moe_layers`: the layers whose FFN is an XMoE layer, ascending. */
  readonly moeLayers: readonly number[];
  /** `moe_intermediate_size`: m. */
  readonly dFf: number;
  /** `layer_norm_eps`. */
  readonly layerNormEps: number;
  /** The configuration of every XMoE layer; its activation (`hidden_act`) is that of the dense FFNs too. */
  readonly layer: Config;
}

/** The token of a byte is the byte. */
export const VOCAB_SIZE = 256;

/** No size of a model is larger. The tensors must then have the sizes, so the file itself bounds the memory. */
const MAX_SIZE = 2 ** 24;

/** The routers that look at one token at a time and at its logits alone: not Hash and not BASE in training. */
const ROUTERS: readonly RouterName[] = ['threshold', 'dense', 'topk', 'switch', 'base_eval'];

const ACTIVATIONS = Object.keys(activations) as ActivationName[];

/**
 * Read the metadata entry `config`. Unknown fields are ignored.
 *
 * @throws TypeError, RangeError that name the field
 */
export function parseConfig(json: string | undefined): ModelConfig {
  const fields: Fields = parseJsonObject('metadata.config', json);
  oneOf('config.model_type', fields.model_type, ['xmoe-gpt']);
  oneOf('config.tokenizer', fields.tokenizer, ['bytes']);
  oneOf('config.tie_word_embeddings', fields.tie_word_embeddings, [true]);
  integer('config.vocab_size', fields.vocab_size, VOCAB_SIZE, VOCAB_SIZE);
  const size = (name: string) => integer(`config.${name}`, fields[name], 1, MAX_SIZE);
  const dModel = size('hidden_size');
  const numHeads = size('num_attention_heads');
  if (dModel % numHeads !== 0) {
    throw unexpected(RangeError, 'config.num_attention_heads', `a divisor of hidden_size ${dModel}`, show(numHeads));
  }
  const numLayers = size('num_hidden_layers');
  return {
    contextLength: size('max_position_embeddings'),
    dModel,
    numLayers,
    numHeads,
    dFfDense: size('intermediate_size'),
    moeLayers: moeLayers(fields.moe_layers, numLayers),
    dFf: size('moe_intermediate_size'),
    layerNormEps: finite('config.layer_norm_eps', fields.layer_norm_eps, { above: 0 }),
    layer: layerConfig(fields, size('num_experts')),
  };
}

/** A capacity factor that is not null lets experts drop tokens; how many then depends on how many run at once. */
function layerConfig(fields: Fields, numExperts: number): Config {
  const { threshold, top_k, capacity_factor, min_capacity, skip_expert, aux_loss_coef } = fields;
  const router = oneOf('config.router', fields.router, ROUTERS);
  const skipExpert = skip_expert !== undefined && oneOf('config.skip_expert', skip_expert, [true, false]);
  const numColumns = numExperts + (skipExpert ? 1 : 0);
  return {
    numExperts,
    router,
    skipExpert,
    activation: oneOf('config.hidden_act', fields.hidden_act, ACTIVATIONS),
    capacityFactor: capacity_factor === null ? null : finite('config.capacity_factor', capacity_factor, { min: 0 }),
    ...(router === 'threshold' && { threshold: finite('config.threshold', threshold) }),
    ...(router === 'topk' && { topK: integer('config.top_k', top_k, 1, numColumns) }),
    ...(min_capacity !== undefined && { minCapacity: integer('config.min_capacity', min_capacity, 0, MAX_SIZE) }),
    ...(aux_loss_coef !== undefined && { auxLossCoef: finite('config.aux_loss_coef', aux_loss_coef) }),
  };
}

function moeLayers(layers: unknown, numLayers: number): number[] {
  if (!Array.isArray(layers)) throw unexpected(TypeError, 'config.moe_layers', 'a list of layers', show(layers));
  layers.forEach((layer, i) => {
    integer(`config.moe_layers[${i}]`, layer, 0, numLayers - 1);
  });
  if (new Set(layers).size < layers.length)
    throw unexpected(RangeError, 'config.moe_layers', 'every layer once', show(layers));
  return layers.toSorted((a: number, b: number) => a - b);
}

type Fields = Readonly<Record<string, unknown>>;
