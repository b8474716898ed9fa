/** The bits of numbers, to compare and to write down. */
import type { Floats } from 'xmoe';

/** In hexadecimal, word by word. */
export function bits({ data }: { readonly data: Floats }): string {
  const words = new Uint32Array(data.slice().buffer);
  return Array.from(words, word => word.toString(16).padStart(8, '0')).join('');
}

/** 64 bits of a SHA-256 of them, in hexadecimal. */
export async function digest({ data }: { readonly data: Floats }): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', data.slice()));
  return Array.from(hash.subarray(0, 8), byte => byte.toString(16).padStart(2, '0')).join('');
}
