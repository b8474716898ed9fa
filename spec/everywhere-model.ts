/** The model that the suite of everywhere opens by path and by address: of few weights, and room for a line of text. */
import { tinyModelFile } from './tiny-model.js';

export function modelFile(): Uint8Array<ArrayBuffer> {
  return tinyModelFile({ max_position_embeddings: 48 }) as Uint8Array<ArrayBuffer>;
}
