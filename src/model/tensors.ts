/** The tensors that a configuration asks for: their places in the model, their names (models/README.md) and shapes. */
import { activations } from '../activations.js';
import { numColumns } from '../selection/routers.js';
import { type ModelConfig, VOCAB_SIZE } from './config.js';

/** Something for each tensor of a model: its name, its values, where it is packed. */
export interface ModelTensors<T> {
  readonly embedTokens: T;
  readonly embedPositions: T;
  readonly layers: readonly LayerTensors<T>[];
  readonly finalNorm: WithBias<T>;
}

export interface LayerTensors<T> {
  readonly attentionNorm: WithBias<T>;
  readonly attention: { readonly [P in 'q' | 'k' | 'v' | 'o']: WithBias<T> };
  readonly ffnNorm: WithBias<T>;
  readonly ffn: DenseTensors<T> | MoeTensors<T>;
}

export interface WithBias<T> {
  readonly weight: T;
  readonly bias: T;
}

export interface DenseTensors<T> {
  readonly kind: 'dense';
  readonly up: WithBias<T>;
  readonly gate: WithBias<T> | undefined;
  readonly down: WithBias<T>;
}

/** Of all experts together: weights [E, out, in], biases [E, out]. */
export interface MoeTensors<T> {
  readonly kind: 'moe';
  readonly router: T;
  readonly up: WithBias<T>;
  readonly gate: WithBias<T> | undefined;
  readonly down: WithBias<T>;
}

/** @param of called once for each tensor; what it throws ends it, before there are more layers than a file has */
export function tensorsOf<T>(config: ModelConfig, of: (name: string, shape: readonly number[]) => T): ModelTensors<T> {
  const { contextLength, dModel, numLayers, moeLayers } = config;
  const withMoe = new Set(moeLayers);
  const layers: LayerTensors<T>[] = [];
  for (let l = 0; l < numLayers; l++) layers.push(layerOf(`model.layers.${l}`, withMoe.has(l)));
  return {
    embedTokens: of('model.embed_tokens.weight', [VOCAB_SIZE, dModel]),
    embedPositions: of('model.embed_positions.weight', [contextLength, dModel]),
    layers,
    finalNorm: withBias('model.norm', [dModel]),
  };

  function layerOf(prefix: string, isMoe: boolean): LayerTensors<T> {
    const projection = (name: string) => withBias(`${prefix}.self_attn.${name}_proj`, [dModel, dModel]);
    return {
      attentionNorm: withBias(`${prefix}.input_layernorm`, [dModel]),
      attention: { q: projection('q'), k: projection('k'), v: projection('v'), o: projection('o') },
      ffnNorm: withBias(`${prefix}.post_attention_layernorm`, [dModel]),
      ffn: isMoe ? moeOf(`${prefix}.mlp`) : denseOf(`${prefix}.mlp`),
    };
  }

  function denseOf(prefix: string): DenseTensors<T> {
    const { dFfDense, layer } = config;
    return {
      kind: 'dense',
      up: withBias(`${prefix}.up_proj`, [dFfDense, dModel]),
      gate: activations[layer.activation].gated ? withBias(`${prefix}.gate_proj`, [dFfDense, dModel]) : undefined,
      down: withBias(`${prefix}.down_proj`, [dModel, dFfDense]),
    };
  }

  function moeOf(prefix: string): MoeTensors<T> {
    const { dFf, layer } = config;
    const experts = (name: string, rows: number, cols: number): WithBias<T> => ({
      weight: of(`${prefix}.experts.${name}`, [layer.numExperts, rows, cols]),
      bias: of(`${prefix}.experts.${name}_bias`, [layer.numExperts, rows]),
    });
    return {
      kind: 'moe',
      router: of(`${prefix}.router.weight`, [numColumns(layer), dModel]),
      up: experts('up_proj', dFf, dModel),
      gate: activations[layer.activation].gated ? experts('gate_proj', dFf, dModel) : undefined,
      down: experts('down_proj', dModel, dFf),
    };
  }

  /** A linear's, or a norm's. */
  function withBias(name: string, shape: readonly number[]): WithBias<T> {
    return { weight: of(`${name}.weight`, shape), bias: of(`${name}.bias`, shape.slice(0, 1)) };
  }
}
