/** The reference layer and random cases. */
import { backward, type Config, forward, type Matrix, reference, type Weights } from 'xmoe';
import { layerOfSizes } from 'xmoe/cases';
import { bitsOf, type Check, expect, expectNear, thrownBy } from './check.js';

const matrix = (...rows: number[][]): Matrix => ({
  rows: rows.length,
  cols: rows[0].length,
  data: Float64Array.from(rows.flat()),
});

/** Two experts on two tokens: each expert hands one column through. */
const weights: Weights = {
  router: matrix([4, 0], [0, 1]),
  up: [matrix([1, 0]), matrix([0, 1])],
  down: [matrix([1], [0]), matrix([0], [1])],
};
const config: Config = { router: 'threshold', numExperts: 2, threshold: 0.9, capacityFactor: null, activation: 'relu' };
const x = matrix([1, 0], [0, 1]);

/** p of the expert that answers: logits are [4, 0] and [0, 1]. */
const [p0, p1] = [1 / (1 + Math.exp(-4)), 1 / (1 + Math.exp(-1))];

function expectValues({ data }: Matrix, expected: readonly number[], what: string): void {
  expect(data.length === expected.length, `${expected.length} values of ${what}, got ${data.length}`);
  for (const [i, value] of expected.entries()) expectNear(data[i], value, 1e-15, `${what}[${i}]`);
}

export const layerChecks: readonly Check[] = [
  {
    feature: 'xmoe',
    name: 'a layer worked by hand',
    run() {
      const trace = forward(reference, x, weights, config);
      expect(trace.statistics.keptPerToken === 1.5, 'one expert for the sure token and two for the other');
      expectValues(trace.y, [p0, 0, 0, p1], 'y');
      expectNear(trace.loadBalancingLoss, 1, 1e-15, 'the loss of perfect balance');
    },
  },
  {
    feature: 'xmoe',
    name: 'its gradients',
    run() {
      const trace = forward(reference, x, weights, config);
      const { down } = backward(trace, x, weights, config, matrix([1, 1], [1, 1])).weights;
      expectValues(down[0], [p0, p0], 'gradient of down[0]');
      expectValues(down[1], [p1, p1], 'gradient of down[1]');
    },
  },
  {
    feature: 'xmoe',
    name: 'a wrong argument is refused by name',
    run() {
      const { message } = thrownBy(() => forward(reference, matrix([1]), weights, config));
      expect(message.startsWith('"x" expected '), `an error that names x, got ${message}`);
    },
  },
  {
    feature: 'xmoe/cases',
    name: 'a recipe gives the same layer everywhere',
    run() {
      const { x, weights } = layerOfSizes(37, 9, 21, 13);
      return [x, weights.router, ...weights.up, ...weights.gate!, ...weights.down]
        .map(({ data }) => bitsOf(data as Float64Array))
        .join();
    },
  },
];
