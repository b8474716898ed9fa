/** The weights of a model in WebAssembly memory: what lies where. */
import { activations } from '../activations.js';
import { type ModelConfig, VOCAB_SIZE } from '../model/config.js';
import { numColumns } from '../selection/routers.js';
import type { Storage } from '../wasm/formats.js';
import {
  type Allocate,
  type FfnShape,
  type PackedExpert,
  type PackedLinear,
  type PackedWeights,
  placeExpert,
  placeLinear,
  placeWeights,
} from '../wasm/packed-weights.js';
import { linearBytes } from '../wasm/panels.js';

export interface PackedModel extends Storage {
  readonly config: ModelConfig;
  /** Rows of float32: [256, d] and [contextLength, d]. */
  readonly embedTokensPtr: number;
  readonly embedPositionsPtr: number;
  readonly layers: readonly PackedLayer[];
  readonly finalNormPtr: number;
  /** `embedTokens` as a linear without bias. */
  readonly head: PackedLinear;
}

/** Norms are float32: d weights, d biases, eps. */
export interface PackedLayer {
  readonly attentionNormPtr: number;
  readonly qkv: PackedProjections;
  readonly o: PackedLinear;
  readonly ffnNormPtr: number;
  readonly ffn: PackedDense | PackedMoe;
}

/** q, k and v as one linear: each [d, d], one behind the other, filled up to whole panels. */
export interface PackedProjections extends PackedLinear {
  /** Bytes from the panels of one to those of the next. */
  readonly step: number;
}

export interface PackedDense extends FfnShape {
  readonly kind: 'dense';
  readonly weights: PackedExpert;
}

export interface PackedMoe extends PackedWeights {
  readonly kind: 'moe';
}

/** Memory for all weights of a configuration. */
export function placeModel(config: ModelConfig, storage: Storage, allocate: Allocate): PackedModel {
  const { contextLength, dModel, numLayers, moeLayers, dFf, dFfDense, layer } = config;
  const shape: FfnShape = { ...storage, dModel, dFf, isGated: activations[layer.activation].gated };
  const placeNorm = () => allocate(4 * (2 * dModel + 1));

  function placeLayer(isMoe: boolean): PackedLayer {
    return {
      attentionNormPtr: placeNorm(),
      qkv: placeProjections(dModel, storage, allocate),
      o: placeLinear(dModel, dModel, storage, allocate),
      ffnNormPtr: placeNorm(),
      ffn: isMoe ? placeMoe() : placeDense(),
    };
  }

  function placeDense(): PackedDense {
    const dense = { ...shape, dFf: dFfDense };
    return { kind: 'dense', ...dense, weights: placeExpert(dense, allocate) };
  }

  function placeMoe(): PackedMoe {
    const numLogits = numColumns(layer);
    return { kind: 'moe', ...placeWeights({ ...shape, numLogits }, layer.numExperts, allocate) };
  }

  const withMoe = new Set(moeLayers);
  return {
    ...storage,
    config,
    embedTokensPtr: allocate(4 * VOCAB_SIZE * dModel),
    embedPositionsPtr: allocate(4 * contextLength * dModel),
    layers: Array.from({ length: numLayers }, (_, l) => placeLayer(withMoe.has(l))),
    finalNormPtr: placeNorm(),
    head: placeLinear(VOCAB_SIZE, dModel, storage, allocate),
  };
}

function placeProjections(dModel: number, storage: Storage, allocate: Allocate): PackedProjections {
  const step = linearBytes(dModel, dModel, storage.set.panelWidth, storage.layout);
  const { panelsPtr, numPanels, steps } = placeLinear(dModel, dModel, storage, numBytes => allocate(3 * numBytes));
  return { panelsPtr, numPanels: 3 * numPanels, steps, step };
}
