/** The one interface of all that the bench of the language model can time. */
import type { Floats } from 'xmoe';

/** One text being read. */
export interface Reader {
  /** Forgets what was read. */
  clear(): void;
  /** Reads bytes after those read so far; the logits of the byte after the last of them, or of all, one row each. */
  read(ids: Uint8Array): Floats | Promise<Floats>;
  close(): void | Promise<void>;
}
