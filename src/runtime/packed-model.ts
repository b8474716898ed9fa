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

/**
 * Memory for all weights of a configuration.
 *
 * @param slots where experts will be, if they have no places of their own: any of them, for a start
 */
export function placeModel(
  config: ModelConfig,
  storage: Storage,
  allocate: Allocate,
  slots?: readonly PackedExpert[],
): PackedModel {
  const { contextLength, dModel, numLayers, moeLayers, dFfDense, layer } = config;
  const shape = expertShape(config, storage);
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
    const weights = placeWeights({ ...shape, numLogits }, slots ? 0 : layer.numExperts, allocate);
    return { kind: 'moe', ...weights, ...(slots && { experts: Array(layer.numExperts).fill(slots[0]) }) };
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

/** Memory for so many experts, of whichever layers. */
export function placeSlots(config: ModelConfig, storage: Storage, allocate: Allocate, count: number): PackedExpert[] {
  return Array.from({ length: count }, () => placeExpert(expertShape(config, storage), allocate));
}

function expertShape({ dModel, dFf, layer }: ModelConfig, storage: Storage): FfnShape {
  return { ...storage, dModel, dFf, isGated: activations[layer.activation].gated };
}

function placeProjections(dModel: number, storage: Storage, allocate: Allocate): PackedProjections {
  const step = linearBytes(dModel, dModel, storage.set.panelWidth, storage.layout);
  const { panelsPtr, numPanels, steps } = placeLinear(dModel, dModel, storage, numBytes => allocate(3 * numBytes));
  return { panelsPtr, numPanels: 3 * numPanels, steps, step };
}
