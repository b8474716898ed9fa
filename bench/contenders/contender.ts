/** The one interface of all that the layer bench can time. */
import type { Floats } from 'xmoe';
import type { Layer, LayerRouter } from '../layers.js';

export interface Contender {
  readonly name: string;
  /** The one that the others are divided by, if it is there. */
  readonly ours?: boolean;
  /**
   * What is inside the clock. `experts`: x and the routing are given, y comes out (rules E1 and C1). `layer`: x is
   * given, y comes out; the router's product, the softmax and the selection are inside too.
   */
  readonly task: Task;
  readonly router: LayerRouter;
  /** The numbers of threads that it can use. */
  readonly threads: readonly number[];
  /** Load, lay out weights and inputs as suits the contender: nothing of that is timed. */
  open(layer: Layer, threads: number): Promise<Runner>;
}

export type Task = 'experts' | 'layer';

export interface Runner {
  /** The timed call: y of `layer.steps[step]`, [T, d], which need only last until the next call. */
  run(step: number): Floats | Promise<Floats>;
  close(): void | Promise<void>;
}
