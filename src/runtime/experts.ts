/** Where the experts of a model are. */
import type { PackedMoe } from './packed-model.js';

export interface Experts {
  /** How many of a layer can be in memory at once: at least 1. */
  readonly most: number;
  /**
   * Sees to it that these experts, at most `most` and ascending, are in memory, where `layer.experts` says, until it is
   * asked for others. Undefined: they are.
   */
  bring(layer: PackedMoe, experts: readonly number[]): Promise<void> | undefined;
}

/** All experts are in memory from the beginning. */
export const resident: Experts = { most: Number.POSITIVE_INFINITY, bring: () => undefined };
