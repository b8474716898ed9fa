/** Some of an implementation's outputs, as one gives them that keeps no whole trace. */
import { uniform } from 'xmoe/cases';
import type { Outputs } from 'xmoe/oracle';

/** Two in five of them, at random; none, now and then. */
export function partOfOutputs(outputs: Outputs, seed: number): Outputs {
  return new Map([...outputs].filter((_, i) => uniform(seed, i) < 0.4));
}
