/** Where the experts of a model are. */
import type { Workspace } from '../wasm/workspace.js';
import type { Ending } from './ending.js';
import type { PackedModel, PackedMoe } from './packed-model.js';
import type { RuntimeUsage } from './types.js';

export interface Experts {
  /** How many of a layer can be in memory at once: at least 1. */
  readonly most: number;
  /** What is in memory and has been read by now. */
  readonly usage: Omit<RuntimeUsage, 'memoryBytes'>;
  /**
   * Sees to it that these experts, at most `most` and ascending, are in memory, where `layer.experts` says, until it is
   * asked for others. Undefined: they are.
   *
   * @param ending of the call that needs them: what comes later is not put into its memory
   */
  bring(space: Workspace, layer: PackedMoe, experts: readonly number[], ending: Ending): Promise<void> | undefined;
  /** Lets go of where they come from. */
  dispose(): void;
}

/** All experts are in memory from the beginning. */
export function residentExperts({ config }: PackedModel, loaded: { weightBytes: number; bytesRead: number }): Experts {
  const count = config.moeLayers.length * config.layer.numExperts;
  return {
    most: Number.POSITIVE_INFINITY,
    usage: { ...loaded, experts: { resident: count, reads: count, evictions: 0 } },
    bring: () => undefined,
    dispose() {},
  };
}
