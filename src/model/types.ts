/** A loaded model. Types only. */
import type { Floats, Matrix, Weights } from '../types.js';
import type { ModelConfig } from './config.js';

/** y = x wᵀ + bias; weight [out, in], bias [out]. */
export interface Linear {
  readonly weight: Matrix;
  readonly bias: Floats;
}

/** Both [d]. */
export interface LayerNorm {
  readonly weight: Floats;
  readonly bias: Floats;
}

/** All four [d, d]: head h of q, k and v owns outputs h·d/numHeads up to (h + 1)·d/numHeads. */
export interface Attention {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
}

/** down(σ(up(x))), or down(σ(gate(x)) ⊙ up(x)): up and gate [D, d], down [d, D]. */
export interface DenseFfn {
  readonly up: Linear;
  readonly gate?: Linear;
  readonly down: Linear;
}

export interface Layer {
  readonly attentionNorm: LayerNorm;
  readonly attention: Attention;
  readonly ffnNorm: LayerNorm;
  readonly ffn: { readonly kind: 'dense'; readonly dense: DenseFfn } | { readonly kind: 'moe'; readonly moe: Weights };
}

export interface Model {
  readonly config: ModelConfig;
  /** [256, d]; also the output head. */
  readonly embedTokens: Matrix;
  /** [contextLength, d] */
  readonly embedPositions: Matrix;
  readonly layers: readonly Layer[];
  readonly finalNorm: LayerNorm;
}
