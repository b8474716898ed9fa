/** What a user writes in TypeScript. It is only compiled: each door has types, and they are not `any`. */
import { type Config, forward, type Matrix, reference, type Trace, type Weights } from 'xmoe';
import { type Layer, layerOfSizes } from 'xmoe/cases';
import { type LayerCase, readLayerCase } from 'xmoe/layer-case';
import { generate, loadModel, type Model } from 'xmoe/model';
import { type CaseResult, type Implementation, implementationOf, runCase } from 'xmoe/oracle';
import { processImplementation } from 'xmoe/process';
import { openRuntime, type Reading, type Runtime, type Token } from 'xmoe/runtime';
import { readSafetensors, type SafetensorsFile } from 'xmoe/safetensors';
import { describeXmoe, type SuiteOptions } from 'xmoe/spec';
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

export async function program(options: SuiteOptions): Promise<Implementation> {
  describeXmoe(implementationOf(reference), options);
  // @ts-expect-error: without a test of somebody's runner
  describeXmoe(implementationOf(reference), {});
  // @ts-expect-error: a command is a list
  await processImplementation('python3 client.py');
  return processImplementation(['python3', 'client.py'], { seconds: 9 });
}

export async function* written(path: string): AsyncGenerator<Token, Reading> {
  const runtime: Runtime = await openRuntime(path, { threads: 2, weights: 'int8' });
  // @ts-expect-error: a format that there is not
  await openRuntime(path, { weights: 'int3' });
  yield* runtime.generate('In the beginning', { maxTokens: 20, temperature: 0 });
  return runtime.stream().read(Uint8Array.of(1, 2), { logits: 'last' });
}
