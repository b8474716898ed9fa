/** The model that comes with the project, and text that it never saw. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { loadModel } from 'xmoe/model';
import type { ShippedModel } from './readers/reader.js';

const models = new URL('../../models/', import.meta.url);

export function shippedModel(): ShippedModel {
  const path = fileURLToPath(new URL('xmoe-gpt.safetensors', models));
  return { path, model: loadModel(new Uint8Array(readFileSync(path))) };
}

/** Of `models/text/sotu.txt`, from its beginning. */
export function textOf(numBytes: number): Uint8Array {
  return new Uint8Array(readFileSync(new URL('text/sotu.txt', models))).subarray(0, numBytes);
}
