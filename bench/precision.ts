/** What weights are stored in, and how far from the reference that may put y. */
import type { Floats } from 'xmoe';
import type { Layer } from './layers.js';

export type Precision = 'f32';

export const bytesPerWeight: Readonly<Record<Precision, number>> = { f32: 4 };

export function boundOf({ steps }: Layer, step: number, _precision: Precision): Floats {
  return steps[step].bound;
}
