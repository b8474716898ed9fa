/** The texts that come with the page. */
import type { TextChoice } from './controls.js';

/** An address cannot be had: no network, or no such file there. */
export class NetworkError extends Error {
  override readonly name = 'NetworkError';
}

const whole = new Map<TextChoice, Uint8Array>();

/** The first bytes of a text; it is fetched once. @throws NetworkError; the reason of an abort */
export async function shippedText(choice: TextChoice, numBytes: number, signal: AbortSignal): Promise<Uint8Array> {
  const bytes = whole.get(choice) ?? (await fetchBytes(new URL(`../text/${choice}.txt`, import.meta.url), signal));
  whole.set(choice, bytes);
  return bytes.subarray(0, numBytes);
}

async function fetchBytes(address: URL, signal: AbortSignal): Promise<Uint8Array> {
  try {
    const answer = await fetch(address, { signal });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
  } catch (error) {
    signal.throwIfAborted();
    throw new NetworkError(`"address" expected a text, got ${address.pathname}: ${(error as Error).message}`);
  }
}
