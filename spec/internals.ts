/** Parts of the compiled backend that no door leads to, for tests of what users cannot reach: in Node alone. */

async function inside<Module>(name: string): Promise<Module> {
  return (await import(new URL(`../../dist/wasm/${name}.js`, import.meta.url).href)) as Module;
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
