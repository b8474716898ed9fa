/** The one interface of all that the bench of the language model can time. */
import type { Floats } from 'xmoe';
import type { Model } from 'xmoe/model';
import type { Precision } from '../precision.js';

export interface ReaderContender {
  readonly name: string;
  /** The one that the others are divided by, if it is there. */
  readonly ours?: boolean;
  /** What weights are stored in: with less than float32 it may write another text. Default f32. */
  readonly precision?: Precision;
  /** The numbers of threads that it can use. */
  readonly threads: readonly number[];
  /** Load, lay out weights as suits the contender: nothing of that is timed. @throws Unavailable */
  open(shipped: ShippedModel, threads: number): Promise<Reader>;
}

/** One text being read. */
export interface Reader {
  /** Forgets what was read. */
  clear(): void;
  /** The timed call: reads bytes after those read so far; the logits of the byte after the last of them, [256]. */
  read(ids: Uint8Array): Floats | Promise<Floats>;
  close(): void | Promise<void>;
}

/** The model that comes with the project: its file, and what the file says. */
export interface ShippedModel {
  readonly path: string;
  readonly model: Model;
}
