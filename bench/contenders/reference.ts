/** The definition of the layer, float64. */
import { runLayer, reference as stages } from 'xmoe';
import type { Contender } from './contender.js';

export const reference: Contender = {
  name: 'reference',
  router: 'threshold',
  threads: [1],
  async open({ steps, weights, config }) {
    return { run: step => runLayer(stages, steps[step].x, weights, config).y.data, close() {} };
  },
};
