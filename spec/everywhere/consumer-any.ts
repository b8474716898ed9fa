/** What a user writes in TypeScript. It is only compiled: each door has types, and they are not `any`. */
import { type Config, forward, type Matrix, reference, type Trace, type Weights } from 'xmoe';
import { type Layer, layerOfSizes } from 'xmoe/cases';
import { type LayerCase, readLayerCase } from 'xmoe/layer-case';
import { generate, loadModel, type Model } from 'xmoe/model';
import { type CaseResult, runCase } from 'xmoe/oracle';
import { readSafetensors, type SafetensorsFile } from 'xmoe/safetensors';
import { type WasmBackend, wasmBackend } from 'xmoe/wasm';

export function layer(x: Matrix, weights: Weights, config: Config): Trace {
  // @ts-expect-error: a router that there is not
  forward(reference, x, weights, { ...config, router: 'gate' });
  return forward(reference, x, weights, config);
}

export function files(bytes: Uint8Array): [SafetensorsFile, LayerCase, CaseResult] {
  // @ts-expect-error: a file is bytes, not a path
  readSafetensors('model.safetensors');
  const layerCase = readLayerCase(bytes);
  return [readSafetensors(bytes), layerCase, runCase(reference, layerCase)];
}

export function* text(bytes: Uint8Array): Generator<number> {
  const model: Model = loadModel(bytes);
  // @ts-expect-error: a misspelt option
  generate(model, bytes, { maxTokens: 8, temprature: 0 });
  for (const { byte } of generate(model, bytes, { maxTokens: 8, temperature: 0 })) yield byte;
}

export async function fast(): Promise<Matrix> {
  const { weights, config, x }: Layer = layerOfSizes(2, 3, 4, 5);
  const backend: WasmBackend = await wasmBackend({ threads: 2 });
  // @ts-expect-error: a number of threads is a number
  await wasmBackend({ threads: '2' });
  return backend.load(weights, config).forwardAsync(x);
}
