/** One call put to an implementation: its answer judged, and how it behaves. */
import type { Matrix } from '../../types.js';
import { conform } from '../judge/conform.js';
import type { Conformance, Finding, Implementation, LayerCall } from '../types.js';
import { answerOf, type Behaviour, behaviours, observe } from './behaviour.js';
import { inquire } from './inquire.js';

export interface ExamineOptions {
  /** What is looked at besides the answer; each costs a call or two. Default: all. */
  readonly behaviours?: readonly Behaviour[];
}

/**
 * Run one call and judge it. An implementation that crashes, hangs or writes rubbish does not conform; one that refuses
 * the call conforms, with nothing judged. Behaviours are looked at once the answer itself conforms.
 *
 * Inputs  the implementation gets a copy: what it does to it is a finding, and harms nobody
 */
export async function examine(
  implementation: Implementation,
  call: LayerCall,
  options: ExamineOptions = {},
): Promise<Conformance> {
  const given = copied(call);
  const outputs = await answerOf(implementation, given);
  if ('kind' in outputs) return withFindings({ verdict: 'conforms', stages: [], findings: [] }, [outputs]);
  const judge = (answer: typeof outputs, of: LayerCall) => conform(answer, of, implementation.arithmetic);
  const result = await inquire(implementation, call, judge(outputs, call));
  const modified = modificationOf(call, given);
  if (modified) return withFindings(result, [{ kind: 'input modified', severity: 'fault', detail: modified }]);
  const findings: Finding[] = [];
  for (const behaviour of options.behaviours ?? behaviours) {
    if (result.verdict !== 'conforms' || findings.some(({ severity }) => severity === 'fault')) break;
    findings.push(...(await observe(behaviour, implementation, given, outputs, judge)));
  }
  return withFindings(result, findings);
}

function withFindings(result: Conformance, more: readonly Finding[]): Conformance {
  const fault = more.find(({ severity }) => severity === 'fault');
  const blamed = result.blamed ?? fault?.stage;
  return {
    ...result,
    verdict: fault ? 'does not conform' : result.verdict,
    findings: [...result.findings, ...more],
    ...(blamed && { blamed }),
  };
}

/** Like structuredClone, whose arrays are of another realm where a test runner has one of its own (jest). */
function copied<T>(value: T): T {
  if (ArrayBuffer.isView(value)) return (value as unknown as Float64Array).slice() as unknown as T;
  if (Array.isArray(value)) return value.map(copied) as unknown as T;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, copied(part)])) as T;
}

/** The first value of the inputs that is not what it was. */
function modificationOf(before: LayerCall, after: LayerCall): string | undefined {
  const [was, is] = [arraysOf(before), arraysOf(after)];
  for (const [name, values] of was) {
    const now = is.get(name) ?? [];
    for (let i = 0; i < values.length; i++) {
      if (!Object.is(values[i], now[i]))
        return `"${name}"[${i}] was ${values[i]} before the call and is ${now[i]} after it`;
    }
  }
  return undefined;
}

function arraysOf({ x, weights, inputs, gradY }: LayerCall): Map<string, ArrayLike<number>> {
  const arrays = new Map<string, ArrayLike<number>>([['x', x.data]]);
  const put = (name: string, value: Matrix | ArrayLike<number> | undefined) => {
    if (value) arrays.set(name, 'data' in value ? value.data : value);
  };
  put('gradY', gradY);
  for (const [key, value] of Object.entries(inputs)) put(`inputs.${key}`, value);
  for (const [key, value] of Object.entries(weights)) {
    if (!Array.isArray(value)) put(`weights.${key}`, value);
    else for (const [e, a] of value.entries()) put(`weights.${key}[${e}]`, a);
  }
  return arrays;
}
