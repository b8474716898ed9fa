/** The time between two tries. */
import { type Abort, throwIfAborted } from './source-types.js';

/** Before the tries in a row that bring no new byte, milliseconds; after the last of them it is given up. */
export const PAUSES: readonly number[] = [100, 300, 1000, 3000, 9000];

/** @throws the reason of an abort, at once */
export async function pause(ms: number, signal: Abort | undefined): Promise<void> {
  throwIfAborted(signal);
  await new Promise<void>(resolve => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener('abort', end);
  });
  throwIfAborted(signal);
}
