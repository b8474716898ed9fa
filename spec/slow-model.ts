/** A model with so much to do that the event loop turns within a read: for tests of what happens meanwhile. */
import { tinyModelFile } from './tiny-model.js';

export function slowModelFile(contextLength: number): Uint8Array {
  return tinyModelFile({
    max_position_embeddings: contextLength,
    hidden_size: 96,
    num_hidden_layers: 4,
    moe_layers: [1, 3],
    num_experts: 16,
    moe_intermediate_size: 64,
    intermediate_size: 400,
  });
}
