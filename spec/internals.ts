/** Modules of the backend that no door leads to, as they were built: its layers with a choice of formats and kernels. */
const load = (name: string) => import(new URL(`../../dist/wasm/${name}.js`, import.meta.url).href);

export const { compileKernels } = (await load('kernels')) as typeof import('../src/wasm/kernels.js');
export const { Memory } = (await load('memory')) as typeof import('../src/wasm/memory.js');
export const { packWeights } = (await load('packed-weights')) as typeof import('../src/wasm/packed-weights.js');
export const { runExperts, runLayer } = (await load('stages')) as typeof import('../src/wasm/stages.js');
export const { layerLoops } = (await load('layer-loops')) as typeof import('../src/wasm/layer-loops.js');
export const { perform } = (await load('tasks')) as typeof import('../src/wasm/tasks.js');
export const { workspaceOver } = (await load('workspace')) as typeof import('../src/wasm/workspace.js');
