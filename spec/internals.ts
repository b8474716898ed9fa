/** Compiled parts that no door leads to, for tests of what users cannot reach, and for bounds: in Node alone. */

async function inside<Module>(name: string, folder = 'wasm'): Promise<Module> {
  return (await import(new URL(`../../dist/${folder}/${name}.js`, import.meta.url).href)) as Module;
}

export const { outputsOf } = await inside<typeof import('../src/wasm/exercise.js')>('exercise');
export const { inflate } = await inside<typeof import('../src/wasm/inflate.js')>('inflate');
export const { compileKernels } = await inside<typeof import('../src/wasm/kernels.js')>('kernels');
export const { Memory } = await inside<typeof import('../src/wasm/memory.js')>('memory');
export const { packWeights } = await inside<typeof import('../src/wasm/packed-weights.js')>('packed-weights');
export const { fused } = await inside<typeof import('../src/wasm/layer.js')>('layer');
export const { runAlone } = await inside<typeof import('../src/wasm/pool.js')>('pool');
export const { workspaceOver } = await inside<typeof import('../src/wasm/workspace.js')>('workspace');
export const { runExperts } = await inside<typeof import('../src/wasm/traced.js')>('traced');
export const { attendScratchBytes, headCacheBytes, keysBytes, valuesBytes } =
  await inside<typeof import('../src/wasm/attention.js')>('attention');

/** The oracle's running error analysis. */
const bounds = 'oracle/bounds';

export type { Approximate } from '../src/oracle/bounds/approximate.js';
export const { exactly, linearApprox, productApprox } = await inside<
  typeof import('../src/oracle/bounds/approximate.js')
>('approximate', bounds);
export const { arithmeticNamed } = await inside<typeof import('../src/oracle/bounds/arithmetic.js')>(
  'arithmetic',
  bounds,
);
export const { activationApprox, softmaxApprox } = await inside<typeof import('../src/oracle/bounds/functions.js')>(
  'functions',
  bounds,
);
export const { combineApprox, weightsApprox } = await inside<typeof import('../src/oracle/bounds/combine-approx.js')>(
  'combine-approx',
  bounds,
);
export const { planOfKept } = await inside<typeof import('../src/oracle/bounds/forward-approx.js')>(
  'forward-approx',
  bounds,
);
export const { expertRounding, routerRounding } = await inside<typeof import('../src/oracle/bounds/rounding.js')>(
  'rounding',
  bounds,
);
export const { choiceOf, EITHER, IN } = await inside<typeof import('../src/oracle/judge/choices.js')>(
  'choices',
  'oracle/judge',
);
