import type { NamedTensor } from 'xmoe/layer-case';
import type { LayerCall, Outputs } from 'xmoe/oracle';
import { type Fault, faultsOf, OURS } from './fault.js';
import { honest, type Parts } from './parts.js';
import { mapped } from './tools.js';

/** One tensor of the outputs changed. */
function changed(
  name: string,
  change: (data: Float64Array, tensor: NamedTensor, call: LayerCall) => ArrayLike<number>,
): Partial<Parts> {
  return {
    outputs(outputs, call) {
      const tensor = outputs.get(name);
      if (!tensor) return outputs;
      const data = change(Float64Array.from(tensor.data), tensor, call);
      return new Map([
        ...outputs,
        [
          name,
          { ...tensor, data: tensor.data instanceof Uint8Array ? Uint8Array.from(data) : Float64Array.from(data) },
        ],
      ]);
    },
  };
}

function shaped(name: string, shapeOf: (shape: readonly number[]) => readonly number[]): Partial<Parts> {
  return {
    outputs(outputs) {
      const tensor = outputs.get(name);
      return tensor ? new Map([...outputs, [name, { ...tensor, shape: shapeOf(tensor.shape) }]]) : outputs;
    },
  };
}

export const behaviourFaults: readonly Fault[] = [
  faultsOf(['not repeatable', 'combine', 'wrong shape'])(
    'the second call of a size is wrong: y is not cleared',
    'aiter #4528',
    () => {
      const kept = new Map<string, Float64Array>();
      return {
        combine(out, plan, call) {
          const y = honest.combine(out, plan, call);
          const key = `${y.rows} ${y.cols}`;
          const before = kept.get(key);
          const sum = before ? mapped(y, (v, t, c) => v + before[t * y.cols + c]) : y;
          kept.set(key, Float64Array.from(sum.data));
          return sum;
        },
      };
    },
  ),
  faultsOf(['not repeatable', 'combine'])(
    'a token without experts gets what the buffer held',
    'flashinfer #2431',
    () => {
      let buffer = new Float64Array(0);
      return {
        combine(out, plan, call) {
          const y = honest.combine(out, plan, call);
          const busy = new Set(plan.tokenIndex);
          const result = mapped(y, (v, t, c) => (busy.has(t) ? v : (buffer[t * y.cols + c] ?? 0)));
          buffer = Float64Array.from(result.data, v => v + 1);
          return result;
        },
      };
    },
  ),
  faultsOf(['selection'])('the threshold of the first call stays', OURS, () => {
    let first: number | undefined;
    return {
      select(routing, call) {
        if (call.config.router !== 'threshold') return honest.select(routing, call);
        first ??= call.config.threshold!;
        return honest.select(routing, { ...call, config: { ...call.config, threshold: first } });
      },
    };
  }),
  faultsOf(['experts', 'not repeatable'])('weights are packed once for each size and kept', OURS, () => {
    const packed = new Map<string, LayerCall['weights']['down']>();
    return {
      experts(plan, call) {
        const { up, down } = call.weights;
        const key = [up.length, up[0].rows, up[0].cols].join();
        if (!packed.has(key)) packed.set(key, down);
        return honest.experts(plan, { ...call, weights: { ...call.weights, down: packed.get(key)! } });
      },
    };
  }),
  faultsOf(['input modified'])('x is modified in place', 'MoE++', {
    combine(out, plan, call) {
      const y = honest.combine(out, plan, call);
      call.x.data.set(y.data);
      return y;
    },
  }),
  faultsOf(['input modified'])('the up bias is scaled in place', OURS, {
    combine(out, plan, call) {
      const { upBias } = call.weights;
      const y = honest.combine(out, plan, call);
      if (upBias) upBias.data.set(upBias.data.map((b: number) => b / 2));
      return y;
    },
  }),
  faultsOf(['not repeatable', 'combine'])('atomic adds lose one now and then', 'flashinfer #5221', () => {
    let calls = 0;
    return {
      combine(out, plan, call) {
        calls++;
        const lost = mapped(out, (v, i) => (calls % 3 === 0 && i === 1 ? 0 : v));
        return honest.combine(lost, plan, call);
      },
    };
  }),
  faultsOf(['batch-dependent', 'combine', 'experts'])('above 32 tokens in bf16', 'vLLM #57016', {
    combine(out, plan, call) {
      const y = honest.combine(out, plan, call);
      return call.x.rows > 32 ? mapped(y, v => Math.fround(v * 256 * 256 + v) - Math.fround(v * 256 * 256)) : y;
    },
  }),
  faultsOf(['non-finite', 'combine'])(
    'NaN for a token without experts',
    OURS,
    changed('y', (data, { shape }, { inputs }) =>
      inputs.tokenMask ? data.map((v, i) => (inputs.tokenMask![Math.floor(i / shape[1])] ? v : Number.NaN)) : data,
    ),
  ),
  faultsOf(['non-finite', 'probs'])(
    'probabilities of padding are NaN',
    OURS,
    changed('probs', (data, { shape }, { inputs }) =>
      inputs.tokenMask ? data.map((v, i) => (inputs.tokenMask![Math.floor(i / shape[1])] ? v : Number.NaN)) : data,
    ),
  ),
  faultsOf(['wrong shape', 'combine'])(
    'y as d × T',
    'applied-ai #25',
    shaped('y', ([T, d]) => [d, T]),
  ),
  faultsOf(['wrong shape', 'probs'])(
    'probabilities as [T, 1, E]',
    OURS,
    shaped('probs', ([T, E]) => [T, 1, E]),
  ),
  faultsOf(['wrong shape', 'combine'])('y without its last token', OURS, {
    outputs(outputs) {
      const y = outputs.get('y')!;
      const T = Math.max(0, y.shape[0] - 1);
      return new Map([...outputs, ['y', { shape: [T, y.shape[1]], data: y.data.slice(0, T * y.shape[1]) }]]);
    },
  }),
  faultsOf(['duplicate expert', 'out of range', 'selection', 'wrong shape'])(
    'an expert is counted twice in selected',
    'vLLM #39391',
    changed('selected', data => {
      const second = data.map((v, i) => (v === 1 && i % 5 === 4 ? 2 : v));
      return second;
    }),
  ),
  faultsOf('selection')(
    'the id of an empty slot, E, is out of range and lands at the next token',
    'sglang #30079',
    changed('selected', (data, { shape: [T, E] }) => {
      const numChosen = Array.from(
        { length: T },
        (_, t) => data.subarray(t * E, (t + 1) * E).filter(v => v > 0).length,
      );
      const longest = Math.max(0, ...numChosen);
      return data.map((v, i) => (i % E === 0 && i > 0 && numChosen[i / E - 1] < longest ? 1 : v));
    }),
  ),
  faultsOf(['dispatch', 'selection', 'out of range'])(
    'kept where not selected',
    OURS,
    changed('kept', (data, { shape }) =>
      data.map((v, i) => (i % shape[1] === shape[1] - 1 && Math.floor(i / shape[1]) === 2 ? 1 : v)),
    ),
  ),
  faultsOf(['crashed', 'hung', 'refused'])('fails without tokens', OURS, {
    select(routing, call) {
      if (call.x.rows === 0) throw new RangeError('expected tokens');
      return honest.select(routing, call);
    },
  }),
  faultsOf(['crashed'])('fails where an expert has no tokens', 'torchtitan #1166', {
    experts(plan, call) {
      const { expertOffsets } = plan;
      const isIdle = expertOffsets.some((offset, e) => e > 0 && offset === expertOffsets[e - 1]);
      if (isIdle && call.x.rows > 8) throw new RangeError('group size must be positive');
      return honest.experts(plan, call);
    },
  }),
];

/** Outputs without those of the given names: what an implementation that says less hands over. */
export function withoutOutputs(outputs: Outputs, names: readonly string[]): Outputs {
  return new Map([...outputs].filter(([name]) => !names.includes(name)));
}
