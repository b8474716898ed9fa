/** Parts of the model's sources that no door leads to: in Node alone. */

async function inside<Module>(name: string): Promise<Module> {
  return (await import(new URL(`../../dist/model/${name}.js`, import.meta.url).href)) as Module;
}

export const { openRanges } = await inside<typeof import('../src/model/ranges.js')>('ranges');
export const { openSource } = await inside<typeof import('../src/model/source.js')>('source');
