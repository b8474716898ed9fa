/** The `config` of a layer-case file: JSON with the authors' snake_case keys <-> Config. */
import { parseJsonObject } from '../check.js';
import { routers } from '../selection/routers.js';
import type { Config } from '../types.js';

/** The sizes that a file states; they must be those of its tensors. */
export interface StatedSizes {
  readonly numTokens: number | undefined;
  readonly dModel: number | undefined;
  readonly dFf: number | undefined;
}

export interface CaseConfig {
  readonly config: Config;
  readonly sizes: StatedSizes;
  /** The recorder broke a tie in the drop order that nobody promised: `kept` is one admissible answer of several. */
  readonly dropOrderOpen: boolean;
}

/**
 * Read the config of a layer case. Keys that a router does not use, and unknown ones, are ignored; what `forward`
 * checks (ranges, shapes) is left to it.
 * @throws TypeError if the text is not a JSON object, or a value is of the wrong kind
 */
export function parseConfig(text: string | undefined): CaseConfig {
  const json = parseJsonObject('config', text);
  const number = (key: string) => optional(json, key, 'number') as number | undefined;
  const flag = (key: string) => optional(json, key, 'boolean') as boolean | undefined;
  const router = optional(json, 'router', 'string') as Config['router'];
  const neverDrops = routers[router]?.dropOrder === 'none';
  const noDrop = flag('drop_tokens') === false || json.capacity_factor === null || neverDrops;
  const given = {
    threshold: number('threshold'),
    topK: number('top_k'),
    minCapacity: number('min_capacity'),
    auxLossCoef: number('aux_loss_coef'),
    skipExpert: flag('skip_expert'),
  };
  const config = {
    router,
    numExperts: number('num_experts'),
    capacityFactor: noDrop ? null : number('capacity_factor'),
    activation: optional(json, 'activation', 'string'),
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
  };
  return {
    config: config as Config, // its ranges are checked by `forward`, like any caller's
    sizes: { numTokens: number('num_tokens'), dModel: number('d_model'), dFf: number('d_ff') },
    dropOrderOpen: flag('drop_order_open') ?? false,
  };
}

/** The JSON that `parseConfig` reads back. */
export function formatConfig({ config, sizes, dropOrderOpen }: CaseConfig): string {
  return JSON.stringify({
    router: config.router,
    threshold: config.threshold,
    top_k: config.topK,
    capacity_factor: config.capacityFactor ?? undefined,
    min_capacity: config.minCapacity,
    drop_tokens: config.capacityFactor !== null,
    skip_expert: config.skipExpert,
    activation: config.activation,
    aux_loss_coef: config.auxLossCoef,
    num_tokens: sizes.numTokens,
    num_experts: config.numExperts,
    d_model: sizes.dModel,
    d_ff: sizes.dFf,
    drop_order_open: dropOrderOpen,
  });
}

function optional(json: Record<string, unknown>, key: string, type: 'number' | 'string' | 'boolean'): unknown {
  const value = json[key];
  if (value === undefined || value === null || typeof value === type) return value ?? undefined;
  throw new TypeError(`"config.${key}" expected a ${type}, got ${JSON.stringify(value).slice(0, 40)}`);
}
