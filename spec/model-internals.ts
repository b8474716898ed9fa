/** Parts of the model's sources, of its files and of the runtime that no door leads to: in Node alone. */

async function inside<Module>(name: string): Promise<Module> {
  return (await import(new URL(`../../dist/${name}.js`, import.meta.url).href)) as Module;
}

export const { openRanges } = await inside<typeof import('../src/model/ranges.js')>('model/ranges');
export const { openSource } = await inside<typeof import('../src/model/source.js')>('model/source');
export const { readParts } = await inside<typeof import('../src/safetensors/parts.js')>('safetensors/parts');
export const { SlotStore } = await inside<typeof import('../src/runtime/slot-store.js')>('runtime/slot-store');
