/** Bytes of a model file -> the model, its weights float64. */
import { readSafetensors } from '../safetensors/index.js';
import { assemble, checkTensors, finiteValues } from './assemble.js';
import { parseConfig } from './config.js';
import type { Model } from './types.js';

/**
 * Load a model from the bytes of a safetensors file. The file is not trusted: whatever it says, the answer is a model or an error.
 *
 * Names   those of models/README.md; every one must be there, in the shape that the configuration states, and no other
 * @throws TypeError, RangeError naming the tensor (and the index of a weight that is not finite) or the field
 */
export function loadModel(bytes: Uint8Array): Model {
  const { tensors, metadata } = readSafetensors(bytes);
  const config = parseConfig(metadata.get('config'));
  checkTensors(config, tensors);
  return assemble(config, name => finiteValues(name, tensors.get(name)!));
}
