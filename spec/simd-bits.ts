/** The bits of target simd on many layers, as digests: simd-bits.json holds those that every machine and engine must give. */
import type { Matrix } from 'xmoe';
import { type Layer, layerOfSizes } from 'xmoe/cases';
import { readLayerCase } from 'xmoe/layer-case';
import { activationNames, routerNames } from 'xmoe/spec';
import { wasmBackend } from 'xmoe/wasm';
import { namesIn, readFile } from './environment.js';

type Call = Pick<Layer, 'x' | 'weights' | 'config' | 'inputs'>;

/** Of each layer, by name: a digest of y. */
export async function digests(): Promise<Record<string, string>> {
  const backend = await wasmBackend({ deterministic: true });
  const digestOf = async ({ x, weights, config, inputs }: Call) => {
    const layer = backend.load(weights, config);
    const y = layer.forward(x, inputs);
    layer.dispose();
    return digest(y);
  };
  const found: Record<string, string> = {};
  for (const [name, call] of await calls()) found[name] = await digestOf(call);
  backend.dispose();
  return found;
}

/** The recorded cases; every router with every activation; and one layer of several tiles in every direction. */
async function calls(): Promise<[string, Call][]> {
  const files = (await namesIn('recordings/')).filter(name => name.endsWith('.safetensors')).sort();
  const recorded = await Promise.all(
    files.map(async name => [name, readLayerCase(await readFile(`recordings/${name}`))] as [string, Call]),
  );
  const drawn = routerNames.flatMap(router =>
    activationNames.map((activation): [string, Call] => [
      `${router} ${activation}`,
      layerOfSizes(37, 9, 40, 21, { router, activation }),
    ]),
  );
  return [...recorded, ...drawn, ['large', layerOfSizes(400, 12, 130, 70)]];
}

/** 64 bits of a SHA-256, in hexadecimal. */
async function digest({ data }: Matrix): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', data.slice()));
  return Array.from(hash.subarray(0, 8), byte => byte.toString(16).padStart(2, '0')).join('');
}
