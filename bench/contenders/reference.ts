/** The definition of the layer, float64. */
import { reference, runLayer } from 'xmoe';
import type { Contender } from './contender.js';

const nothing = () => {};

export const referenceExperts: Contender = {
  name: 'reference',
  task: 'experts',
  router: 'threshold',
  threads: [1],
  async open({ steps, weights, config }) {
    return {
      run(step) {
        const { x, plan } = steps[step];
        return reference.combine(reference.runExperts(x, plan, weights, config).out, plan).data;
      },
      close: nothing,
    };
  },
};

export const referenceLayer: Contender = {
  name: 'reference',
  task: 'layer',
  router: 'threshold',
  threads: [1],
  async open({ steps, weights, config }) {
    return { run: step => runLayer(reference, steps[step].x, weights, config).y.data, close: nothing };
  },
};
