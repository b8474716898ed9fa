/** Model files of any size with random weights. */
import { nextUniform, randomState } from 'xmoe/model';
import { type FloatDtype, fromFloat64, type Tensor, writeSafetensors } from 'xmoe/safetensors';

/** The fields of a small model; tests override some. */
export const TINY = {
  model_type: 'xmoe-gpt',
  tokenizer: 'bytes',
  tie_word_embeddings: true,
  vocab_size: 256,
  max_position_embeddings: 8,
  hidden_size: 6,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  intermediate_size: 7,
  moe_layers: [0, 2],
  num_experts: 5,
  moe_intermediate_size: 3,
  hidden_act: 'relu',
  router: 'threshold',
  threshold: 0.6,
  capacity_factor: null as number | null,
  layer_norm_eps: 1e-5,
};

export type Fields = typeof TINY & Record<string, unknown>;

export type Shapes = Record<string, readonly number[]>;

/** The tensors that a model of these fields has: models/README.md. */
export function shapesOf(fields: Fields): Shapes {
  const { hidden_size: d, intermediate_size: D, num_experts: E, moe_intermediate_size: m } = fields;
  const gated = fields.hidden_act === 'swiglu' || fields.hidden_act === 'geglu';
  const shapes: Record<string, readonly number[]> = {
    'model.embed_tokens.weight': [256, d],
    'model.embed_positions.weight': [fields.max_position_embeddings, d],
    'model.norm.weight': [d],
    'model.norm.bias': [d],
  };
  const linear = (name: string, rows: number, cols: number) => {
    shapes[`${name}.weight`] = [rows, cols];
    shapes[`${name}.bias`] = [rows];
  };
  for (let l = 0; l < fields.num_hidden_layers; l++) {
    const layer = `model.layers.${l}`;
    for (const norm of ['input_layernorm', 'post_attention_layernorm']) {
      shapes[`${layer}.${norm}.weight`] = [d];
      shapes[`${layer}.${norm}.bias`] = [d];
    }
    for (const name of ['q', 'k', 'v', 'o']) linear(`${layer}.self_attn.${name}_proj`, d, d);
    if (fields.moe_layers.includes(l)) {
      shapes[`${layer}.mlp.router.weight`] = [fields.skip_expert ? E + 1 : E, d];
      for (const name of gated ? ['up', 'gate'] : ['up']) {
        shapes[`${layer}.mlp.experts.${name}_proj`] = [E, m, d];
        shapes[`${layer}.mlp.experts.${name}_proj_bias`] = [E, m];
      }
      shapes[`${layer}.mlp.experts.down_proj`] = [E, d, m];
      shapes[`${layer}.mlp.experts.down_proj_bias`] = [E, d];
    } else {
      for (const name of gated ? ['up', 'gate'] : ['up']) linear(`${layer}.mlp.${name}_proj`, D, d);
      linear(`${layer}.mlp.down_proj`, d, D);
    }
  }
  return shapes;
}

export interface FileOptions {
  readonly seed?: number;
  /** Default F32. */
  readonly dtype?: FloatDtype;
  /** Weights written in the place of random ones, by name. */
  readonly weights?: Readonly<Record<string, readonly number[]>>;
  /** Other tensors than those that the fields ask for. */
  readonly shapes?: Shapes;
  /** Metadata `config`, if not the fields. */
  readonly config?: string;
}

/** The bytes of a model file: random weights from −2 to 2, so that routers have an opinion. */
export function tinyModelFile(overrides: Partial<Fields> = {}, options: FileOptions = {}): Uint8Array {
  const fields = { ...TINY, ...overrides } as Fields;
  const random = randomState(options.seed ?? 1);
  const tensors = new Map<string, Tensor>();
  for (const [name, shape] of Object.entries(options.shapes ?? shapesOf(fields))) {
    const length = shape.reduce((a, b) => a * b, 1);
    const values = Array.from({ length }, (_, i) => options.weights?.[name]?.[i] ?? 4 * nextUniform(random) - 2);
    tensors.set(name, fromFloat64(values, shape, options.dtype ?? 'F32'));
  }
  return writeSafetensors({ tensors, metadata: new Map([['config', options.config ?? JSON.stringify(fields)]]) });
}
