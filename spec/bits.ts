/** The bits of numbers, to compare. */
import type { Floats } from 'xmoe';

/** In hexadecimal, word by word. */
export function bits({ data }: { readonly data: Floats }): string {
  const words = new Uint32Array(data.slice().buffer);
  return Array.from(words, word => word.toString(16).padStart(8, '0')).join('');
}
