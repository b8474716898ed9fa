/** The one interface of all that the layer bench can time. */
import type { Floats } from 'xmoe';
import type { Layer, LayerRouter } from '../layers.js';
import type { Precision } from '../precision.js';

export interface Contender {
  readonly name: string;
  /** The one that the others are divided by, if it is there. */
  readonly ours?: boolean;
  readonly router: LayerRouter;
  /** What weights are stored in: it decides how far y may be from the reference. Default f32. */
  readonly precision?: Precision;
  /** The numbers of threads that it can use. */
  readonly threads: readonly number[];
  /** Load, lay out weights and inputs as suits the contender: nothing of that is timed. @throws Unavailable */
  open(layer: Layer, threads: number): Promise<Runner>;
}

export interface Runner {
  /** The timed call: y of `layer.steps[step]`, [T, d], which need only last until the next call. */
  run(step: number): Floats | Promise<Floats>;
  close(): void | Promise<void>;
}

/** Why a contender cannot take part here; without it the others go on. */
export class Unavailable extends Error {}
