/**
 * What one writes first: loops over typed arrays of float32, the rows of an expert gathered before its products. The
 * routing is given.
 */
import type { Contender } from './contender.js';
import { gatherExpert, scatterExpert } from './rows.js';

export const plain: Contender = {
  name: 'plain JS',
  router: 'threshold',
  threads: [1],
  async open({ shape: { dModel, dFf, numExperts }, up, down, steps }) {
    const size = dFf * dModel;
    return {
      run(step) {
        const { x, plan } = steps[step];
        const y = new Float32Array(x.data.length);
        for (let e = 0; e < numExperts; e++) {
          const given = gatherExpert(x, plan, e);
          const hidden = product(given.data, up.subarray(e * size, (e + 1) * size), dFf, dModel);
          for (let i = 0; i < hidden.length; i++) hidden[i] = Math.max(0, hidden[i]);
          scatterExpert(y, product(hidden, down.subarray(e * size, (e + 1) * size), dModel, dFf), plan, e);
        }
        return y;
      },
      close() {},
    };
  },
};

/** x wᵀ: x [n, k], w [m, k] -> [n, m]. */
function product(x: Float32Array, w: Float32Array, m: number, k: number): Float32Array {
  const n = x.length / k;
  const y = new Float32Array(n * m);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      let sum = 0;
      for (let l = 0; l < k; l++) sum += x[i * k + l] * w[j * k + l];
      y[i * m + j] = sum;
    }
  }
  return y;
}
