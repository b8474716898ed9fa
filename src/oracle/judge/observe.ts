/** What an implementation said, read as hostile: shapes are checked before anything looks at a value. */
import { show } from '../../check.js';
import type { NamedTensor } from '../../layer-case/index.js';
import { numColumns } from '../../selection/routers.js';
import type { Floats, Matrix } from '../../types.js';
import type { Finding, LayerCall, Outputs, StageName } from '../types.js';

/** One output of the right shape; whatever its values are. */
export interface Observed {
  readonly data: Floats | Uint8Array;
  readonly shape: readonly number[];
  /** Fit to judge the later stages by: every value is finite. */
  readonly usable: boolean;
}

export interface Observation {
  readonly tensors: ReadonlyMap<string, Observed>;
  readonly findings: readonly Finding[];
  /** Outputs that are there in another shape, by name: what is wrong with them. */
  readonly misshapen: ReadonlyMap<string, string>;
}

/** The stage to which each output belongs. */
export function stageOf(name: string): StageName {
  switch (name) {
    case 'logits':
    case 'probs':
    case 'combine':
      return name;
    case 'selected':
      return 'selection';
    case 'kept':
      return 'dispatch';
    case 'expert_out':
      return 'experts';
    case 'y':
      return 'combine';
    case 'load_balancing_loss':
    case 'loss':
      return 'loss';
    default:
      return name as `grad.${string}`;
  }
}

/** Reads the outputs that a call of this kind has; others are passed over. `expert_out` may have any number of rows. */
export function observe(outputs: Outputs, call: LayerCall): Observation {
  const tensors = new Map<string, Observed>();
  const misshapen = new Map<string, string>();
  for (const [name, shape] of expectedShapes(call)) {
    const tensor: unknown = outputs.get(name);
    if (tensor === undefined) continue;
    const fault = faultOf(tensor, shape, name === 'expert_out');
    if (fault !== undefined) {
      misshapen.set(name, fault);
      continue;
    }
    const { data, shape: given } = tensor as NamedTensor;
    tensors.set(name, { data, shape: given, usable: data.every((v: number) => Number.isFinite(v)) });
  }
  const findings = Array.from(misshapen, ([name, fault]): Finding => {
    return { kind: 'wrong shape', severity: 'fault', stage: stageOf(name), detail: `${name}: ${fault}` };
  });
  if (tensors.size === 0 && misshapen.size === 0) {
    const names = [...expectedShapes(call).keys()].join(', ');
    const detail = `expected some of ${names}, got ${[...outputs.keys()].slice(0, 8).map(show).join(', ') || 'nothing'}`;
    findings.push({ kind: 'wrote rubbish', severity: 'fault', detail });
  }
  return { tensors, findings, misshapen };
}

/** The outputs of such a call, by name. */
export function expectedShapes({ config, weights, x, gradY }: LayerCall): Map<string, readonly number[]> {
  const [numTokens, numExperts] = [x.rows, numColumns(config)];
  const { rows: dFf, cols: dModel } = weights.up[0];
  const pairs = [numTokens, numExperts];
  const hasRouter = config.router !== 'hash';
  const shapes: [string, readonly number[]][] = [
    ...(hasRouter
      ? ([
          ['logits', pairs],
          ['probs', pairs],
        ] as [string, number[]][])
      : []),
    ['selected', pairs],
    ['kept', pairs],
    ['expert_out', [numTokens * numExperts, dModel]],
    ['combine', pairs],
    ['y', [numTokens, dModel]],
    ['load_balancing_loss', [1]],
  ];
  if (gradY) {
    // as a backward comes to them: what a wrong one spoils follows it
    const perExpert = weights.up.length;
    shapes.push(['loss', [1]], ['grad.experts.down_proj', [perExpert, dModel, dFf]]);
    if (weights.downBias) shapes.push(['grad.experts.down_proj_bias', [perExpert, dModel]]);
    shapes.push(['grad.experts.up_proj', [perExpert, dFf, dModel]]);
    if (weights.upBias) shapes.push(['grad.experts.up_proj_bias', [perExpert, dFf]]);
    if (weights.gate) shapes.push(['grad.experts.gate_proj', [perExpert, dFf, dModel]]);
    if (weights.gateBias) shapes.push(['grad.experts.gate_proj_bias', [perExpert, dFf]]);
    if (hasRouter) shapes.push(['grad.router.weight', [numExperts, dModel]]);
    shapes.push(['grad.x', [numTokens, dModel]]);
  }
  return new Map(shapes);
}

function faultOf(tensor: unknown, expected: readonly number[], anyRows: boolean): string | undefined {
  const { shape, data } = (tensor ?? {}) as Partial<NamedTensor>;
  const isFloats = data instanceof Float64Array || data instanceof Float32Array;
  if (!Array.isArray(shape) || !(isFloats || data instanceof Uint8Array)) {
    return 'expected { shape, data: Float64Array | Float32Array | Uint8Array }';
  }
  const isScalar = expected.length === 1 && expected[0] === 1 && shape.length === 0;
  const rowsOnly = anyRows && shape.length === 2 && shape[0] <= expected[0] && shape[1] === expected[1];
  if (!isScalar && !rowsOnly && shape.join() !== expected.join()) {
    const rows = anyRows ? `A, ${expected[1]}` : expected.join(', ');
    return `expected shape [${rows}], got [${shape.slice(0, 8).join(', ')}]`;
  }
  const size = shape.reduce((product: number, length: number) => product * length, 1);
  return data.length === size ? undefined : `expected ${size} values for its shape, got ${data.length}`;
}

/** A tensor as a matrix: rows by the first dimension. */
export function asMatrix({ data, shape }: Observed): Matrix {
  const floats = data instanceof Uint8Array ? Float64Array.from(data) : data;
  const rows = shape.length === 2 ? shape[0] : 1;
  return { rows, cols: rows === 0 ? (shape[1] ?? 0) : floats.length / rows, data: floats };
}
