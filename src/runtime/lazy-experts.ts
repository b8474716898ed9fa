/** Experts that are read when a token first chooses them, into slots; the biases of all are here from the beginning. */

import { row } from '../matrix.js';
import type { ModelParts } from '../model/model-parts.js';
import type { Abort } from '../model/source.js';
import { type MoeTensors, tensorsOf } from '../model/tensors.js';
import type { Matrix } from '../types.js';
import type { Memory } from '../wasm/memory.js';
import type { PackedExpert } from '../wasm/packed-weights.js';
import { packBias, packMatrix } from '../wasm/panels.js';
import type { Workspace } from '../wasm/workspace.js';
import type { Ending } from './ending.js';
import type { Experts } from './experts.js';
import { matrixOf, type Packer, storable } from './pack.js';
import type { PackedModel, PackedMoe } from './packed-model.js';
import { SlotStore } from './slot-store.js';
import type { RuntimeUsage } from './types.js';

/** An XMoE layer whose experts are in slots. */
interface Layer {
  readonly names: MoeTensors<string>;
  /** The number of its first expert, among those of all layers. */
  readonly firstKey: number;
  /** The model's own list of them. */
  readonly experts: PackedExpert[];
}

/** Weights that have come. */
interface Arrived {
  /** The expert, in its layer. */
  readonly e: number;
  readonly parts: readonly { readonly part: keyof PackedExpert; readonly bias: string; readonly weight: Matrix }[];
}

/** Bytes of packed weights: of an expert, and of all that is not. */
export interface WeightBytes {
  readonly ofExpert: number;
  readonly ofRest: number;
}

export class LazyExperts implements Experts {
  readonly most: number;
  readonly #packed: PackedModel;
  readonly #parts: ModelParts;
  readonly #bytes: WeightBytes;
  readonly #layers = new Map<PackedMoe, Layer>();
  readonly #byKey: Layer[] = [];
  /** [E, n] each, by the tensor's name. */
  readonly #biases = new Map<string, Matrix>();
  readonly #store: SlotStore<PackedExpert, Arrived>;

  /** @param slots one at least, if there are experts */
  constructor(packed: PackedModel, slots: readonly PackedExpert[], parts: ModelParts, bytes: WeightBytes) {
    this.most = slots.length;
    this.#packed = packed;
    this.#parts = parts;
    this.#bytes = bytes;
    this.#store = new SlotStore(slots, (key, signal) => this.#read(key, signal));
    const { layers } = tensorsOf(packed.config, name => name);
    packed.layers.forEach(({ ffn }, l) => {
      const names = layers[l].ffn;
      if (ffn.kind !== 'moe' || names.kind !== 'moe') return;
      const layer = { names, firstKey: this.#byKey.length, experts: ffn.experts as PackedExpert[] };
      this.#layers.set(ffn, layer);
      for (let e = 0; e < ffn.experts.length; e++) this.#byKey.push(layer);
    });
  }

  get usage(): Omit<RuntimeUsage, 'memoryBytes'> {
    const experts = this.#store.usage;
    return {
      weightBytes: this.#bytes.ofRest + experts.resident * this.#bytes.ofExpert,
      bytesRead: this.#parts.bytesRead,
      experts,
    };
  }

  /** How the tensors that are read at once are packed, given how all are. */
  packers(all: ReadonlyMap<string, Packer>): ReadonlyMap<string, Packer> {
    const packers = new Map(all);
    for (const { names } of this.#layers.values()) {
      for (const { weight, bias } of partsOf(names)) {
        packers.delete(weight);
        packers.set(bias, tensor => this.#biases.set(bias, matrixOf(bias, tensor)));
      }
    }
    return packers;
  }

  bring(
    { memory }: Workspace,
    moe: PackedMoe,
    experts: readonly number[],
    { signal }: Ending,
  ): Promise<void> | undefined {
    const { firstKey, experts: places } = this.#layers.get(moe)!;
    const place = () => {
      for (const e of experts) places[e] = this.#store.slotOf(firstKey + e);
    };
    const keys = experts.map(e => firstKey + e);
    const coming = this.#store.bring(keys, (slot, arrived) => this.#put(slot, arrived, memory), signal);
    if (coming) return coming.then(place);
    place();
    return undefined;
  }

  dispose(): void {
    this.#parts.close().catch(() => {}); // there is nobody left to tell
  }

  /** @throws SourceError; TypeError | RangeError that names the tensor, as when all are read at once */
  async #read(key: number, signal: Abort): Promise<Arrived> {
    const { names, firstKey } = this.#byKey[key];
    const e = key - firstKey;
    const reading = partsOf(names).map(async ({ part, weight, bias }) => {
      const tensor = await this.#parts.element(weight, e, signal);
      return { part, bias, weight: storable(`${weight}[${e}]`, matrixOf(weight, tensor, [e]), this.#packed) };
    });
    return { e, parts: await Promise.all(reading) };
  }

  #put(slot: PackedExpert, { e, parts }: Arrived, memory: Memory): void {
    for (const { part, weight, bias } of parts) {
      const { panelsPtr } = slot[part]!;
      packMatrix(weight, this.#packed, memory, panelsPtr);
      packBias(row(this.#biases.get(bias)!, e), weight.cols, this.#packed, memory, panelsPtr);
    }
  }
}

function partsOf({ up, gate, down }: MoeTensors<string>) {
  const parts = [{ part: 'up' as const, ...up }, ...(gate ? [{ part: 'gate' as const, ...gate }] : [])];
  return [...parts, { part: 'down' as const, ...down }];
}
